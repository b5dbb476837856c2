"""The generated world: a small subject with exact ground truth, in plain English.

Things belong to categories, requests combine an intent with a thing, a law says what to do, attacks try to get round it.
`oracle` knows the truth and imports nothing it measures.
"""
