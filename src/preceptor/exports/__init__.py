"""The judge as the reward of trainers that are not ours: TRL in process, verl and OpenRLHF through the judge service.

`answers` takes a completion apart before anything leaves the trainer, `client` asks the service, `trl`, `verl` and `openrlhf` speak to one
trainer each, `write` makes the data set and the reward file that a launcher is pointed at.

Three rules hold in all of them. What is posted is an `AnswerView`; the reasoning never is. What is the completion's own fault has the floor
reward by plain code, and the judge is not asked. An abstention is never a number that a trainer could learn from: each module says what it is
instead, and why. Not here: the trainers' settings, and our own RL, which is `preceptor.rl`.
"""
