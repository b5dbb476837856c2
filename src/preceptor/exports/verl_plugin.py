# pyright: basic
"""Registers the advantage estimator `grpo_judged` with verl: `VERL_USE_EXTERNAL_MODULES=preceptor.exports.verl_plugin`.

verl imports what that variable names, for what importing does. This is the one module here whose import has an effect.
"""

from verl.trainer.ppo.core_algos import register_adv_est  # type: ignore[import-not-found]

from preceptor.exports.verl import ESTIMATOR, grpo_judged

register_adv_est(ESTIMATOR)(grpo_judged)
