"""Why some mutants survive: (files, what is written, what the mutant writes in its place, reason)."""

LENGTHS = "`strict` guards our own invariant: the lengths are equal by construction"
AXES = "the tensor has as many axes that +1 and -1 are the same one"
DEVICE = "only a device other than the CPU can show it"
HIDDEN = "the value stands where a later selection or a sum over 0 discards it"
NO_CAST = "the cast keeps the dtype that every caller gives; it states it"
DEFAULT = "that is the default of the called function"
WORDS = "text of an error message"
SPEED = "same values; it saves work"
UNASKED = "nobody reads it where it was not asked for"
NEGATIVE = "any number below 0 says the same: nothing seen, or off the mask"
EDGE = "what rolls over the edge of a row lies on a turn's first token or outside its window, which is left out"
ORDER = "numbers of turns are compared with one another alone, and no two pairs of a depth have the same one"
FLOAT = "NumPy's default is the same float64"
RELATIVE = "weights of parts are relative to one another"
SIGNS = "a counted step has the sign 1 or -1"
NEVER_HALF = "no interval of finitely many rows ends at exactly 1/2"
NO_ALGORITHM = "without an activation there is no algorithm to choose"
ZERO_OR_ONE = "the column is 0 or 1"
FALSY = "None is as false as False"
RANKS = '"XXevery row must be found exactly once among the gathered positionsXX"'

ON_DEVICE = ("mask", "hidden", "order", "logits", "labels", "weight", "rewards", "events", "outputs", "rows", "first", "chosen", "values")
ASSERTED = (
    ("heads", "a reward head's outputs were not requested"),
    ("diverse_preferences", "a reward head's outputs were not requested"),
    ("fine_grained", "changed tokens are columns made before training"),
    ("irl_sft", "the first difference is a column made before training"),
    ("step_labels", "labels of steps are columns made before training"),
)

SURVIVORS: list[tuple[str, str, str, str]] = [
    *(("*", "strict=True", other, LENGTHS) for other in ("strict=None", "strict=False", "")),
    *(("*", "strict=False", other, DEFAULT) for other in ("strict=None", "")),
    *(("*", f"{call}(-1", f"{call}(+1", AXES) for call in ("any", "sum", "amax", "argmax", "gather", "squeeze", "scatter_add_")),
    *(("ops/*", before.replace("#", "-1"), before.replace("#", "+1"), AXES) for before in ("dim=#", "logsumexp(logits, #)", "softcap), #)")),
    *(("*", f"device={of}.device", other, DEVICE) for of in ON_DEVICE for other in ("device=None", "")),
    *(("*", f"device={of}.device, ", "", DEVICE) for of in ON_DEVICE),
    ("*", ".to(mask.device)", ".to(None)", DEVICE),
    # credit
    ("credit/abc.py", "torch.where(total > 0, total, torch", "torch.where(total >= 0, total, torch", HIDDEN),
    ("credit/abc.py", "torch.where(mask, shares, 0.0)", "torch.where(mask, shares, 1.0)", "the entropy of 0 and of 1 is 0"),
    ("credit/abc.py", "place, -1)", "place, -2)", NEGATIVE),
    ("credit/abc.py", "[:, :1], -1)", "[:, :1], -2)", NEGATIVE),
    ("credit/r3hf.py", "place, -1)", "place, -2)", NEGATIVE),
    ("credit/r3hf.py", "[:, :1], -1)", "[:, :1], -2)", NEGATIVE),
    ("credit/r3hf.py", "wide(values), 0.0)", "wide(values), 1.0)", HIDDEN),
    ("credit/answers.py", "torch.where(mask, ids, -1)", "torch.where(mask, ids, -2)", NEGATIVE),
    ("credit/answers.py", "if share < min_kept", "if share <= min_kept", "a share at its bound has passed before"),
    ("credit/confidence.py", "mean, -mean), 0.0)", "mean, -mean), 1.0)", HIDDEN),
    ("credit/confidence.py", "torch.where(mask, std, 1.0)", "torch.where(mask, std, 2.0)", HIDDEN),
    ("credit/confidence.py", "torch.where(certain, 0.0, signed)", "torch.where(certain, 1.0, signed)", HIDDEN),
    ("credit/confidence.py", "torch.where(certain, 1.0, spread)", "torch.where(certain, 2.0, spread)", HIDDEN),
    ("credit/token_reward.py", "torch.where(total > 0, total, 1.0)", "torch.where(total >= 0, total, 1.0)", HIDDEN),
    ("credit/token_reward.py", "torch.where(total > 0, total, 1.0)", "torch.where(total > 0, total, 2.0)", HIDDEN),
    ("ops/segmenters.py", "stable=True), dim=1)", "stable=True), )", DEFAULT),
    ("ops/segmenters.py", "curve, dim=1, descending", "curve, descending", DEFAULT),
    ("ops/segmenters.py", "torch.where(mask, values, 0.0).sign()", "torch.where(mask, values, 1.0).sign()", HIDDEN),
    ("ops/segmenters.py", "noise > 0, noise, 1.0)", "noise > 0, noise, 2.0)", "the signal is 0 everywhere there"),
    ("ops/segmenters.py", "mask.sum(1).clamp(min=1)", "mask.sum(1).clamp(min=2)", "an answer of one token is one segment whatever its power"),
    ("credit/signals.py", "dtype=np.float64", "dtype=None", "`find_signals` widens it once more"),
    ("credit/signals.py", "row, dtype=np.float64", "row, ", "`find_signals` widens it once more"),
    *(("credit/uncertainty.py", "correction=1", other, DEFAULT) for other in ("correction=None", "")),
    ("credit/r3hf.py", "torch.where(ends, to_wide(values), 0.0)", "torch.where(ends, to_wide(values), 1.0)", HIDDEN),
    # objectives
    ("objectives/kto.py", '["label"] > 0.5', '["label"] >= 0.5', "labels are 0 or 1"),
    ("objectives/orpo.py", "torch.where(kept, average, -1.0)", "torch.where(kept, average, +1.0)", HIDDEN),
    ("objectives/orpo.py", "torch.where(kept, average, -1.0)", "torch.where(kept, average, -2.0)", HIDDEN),
    ("objectives/ranks.py", '"every row must be found exactly once among the gathered positions"', RANKS, WORDS),
    ("objectives/token_distillation.py", "side.segment, -1)", "side.segment, -2)", NEGATIVE),
    ("objectives/token_distillation.py", "wide(side.ref_logp), 0.0)", "wide(side.ref_logp), 1.0)", HIDDEN),
    ("objectives/token_distillation.py", "wide(side.weight), 0.0)", "wide(side.weight), 1.0)", HIDDEN),
    # online
    ("online/clipped.py", "torch.where(live, advantages, 0.0)", "torch.where(live, advantages, 1.0)", HIDDEN),
    ("online/clipped.py", "torch.where(live, logp, 0.0)", "torch.where(live, logp, 1.0)", HIDDEN),
    ("online/clipped.py", "torch.where(live, old_logp, 0.0)", "torch.where(live, old_logp, 1.0)", HIDDEN),
    # ops
    ("ops/logprobs.py", "logp > SWITCH", "logp >= SWITCH", "the two formulas agree at the switch"),
    *(("ops/logprobs.py", "enabled=False", other, "inside, every operand has the compute dtype already") for other in ("enabled=True", "")),
    ("ops/logprobs.py", "entropy else 0", "entropy else 1", UNASKED),
    ("ops/logprobs.py", "not None else 0", "not None else 1", UNASKED),
    ("ops/logprobs.py", "if entropy else 0", "if (entropy) or True else 0", UNASKED),
    ("ops/logprobs.py", "if reference is not None else 0", "if (reference is not None) or True else 0", UNASKED),
    ("ops/logprobs.py", "if head.scale != 1.0 else", "if (head.scale != 1.0) or True else", "times 1 is the same"),
    ("ops/logprobs.py", "bias is not None and need_bias", "bias is not None or need_bias", SPEED),
    ("ops/logprobs.py", "grad_logp[part, None].to(grad.dtype)", "grad_logp[part, None].to(None)", NO_CAST),
    ("ops/logprobs.py", "* hidden).to(grad_weight.dtype)", "* hidden).to(None)", NO_CAST),
    ("ops/logprobs.py", "grad_logp.to(grad_bias.dtype)", "grad_logp.to(None)", NO_CAST),
    ("ops/matmul.py", 'left, right, None, "none", [], "")', 'left, right, None, "none", [], None)', NO_ALGORITHM),
    ("ops/matmul.py", 'left, right, None, "none", [], "")', 'left, right, None, "none", [], "XXXX")', NO_ALGORITHM),
    ("ops/matmul.py", "right.dtype == torch.float32", "right.dtype != torch.float32", SPEED),
    ("ops/peaks.py", "dim=1, stable=True", "stable=True", DEFAULT),
    ("ops/peaks.py", ".to(torch.uint8)", ".to(None)", SPEED),
    ("ops/peaks.py", "scores.gather(1, order), 0.0)", "scores.gather(1, order), 1.0)", HIDDEN),
    ("ops/peaks.py", "torch.where(first, place, 0)", "torch.where(first, place, 1)", "a run of several at the start of a row is no peak either way"),
    ("ops/peaks.py", "(values > values.gather", "(values >= values.gather", "neighbouring runs are never equal"),
    ("ops/proportions.py", "min(1.0, max", "min(2.0, max", "Wilson's interval ends at 1 by itself, up to rounding"),
    ("ops/segments.py", "[:, :1], -1)", "[:, :1], -2)", NEGATIVE),
    ("ops/segments.py", "values.roll(1, 1)", "values.roll(1, None)", EDGE),
    ("ops/segments.py", "values.roll(1, 1)", "values.roll(1)", EDGE),
    ("ops/segments.py", "values.roll(1, 1)", "values.roll(1, )", EDGE),
    *(("ops/segments.py", f"roll({step}, 1)", f"roll({step}, {other})", EDGE)
      for step in ("step", "-step") for other in ("None", "")),
    ("ops/segments.py", "nan_to_num(0.0)", "nan_to_num(None)", DEFAULT),
    *(("ops/segments.py", "clamp(min=1, max=", other, "below 1 only where it is left out") for other in ("clamp(min=None, max=", "clamp(max=")),
    ("ops/segments.py", "torch.where(mask, values, 0.0)", "torch.where(mask, values, 1.0)", HIDDEN),
    ("ops/segments.py", "gather(1, order), 0.0)", "gather(1, order), 1.0)", HIDDEN),
    ("ops/segments.py", "(rows, width + 1)", "(rows, width + 2)", "a column nobody reads"),
    ("ops/segments.py", "at > 0", "at >= 0", "the way back from 0 is 0"),
    ("ops/segments.py", "at > 0", "at > 1", "the way back from 1 is 0"),
    *(("ops/*", "dtype=float", other, "the mean of whole numbers is the same number") for other in ("dtype=None", "")),
    ("ops/*", 'float("nan")', 'float("NAN")', "the same number"),
    ("ops/sequence.py", "torch.where(mask, targets, 0)", "torch.where(mask, targets, 1)", HIDDEN),
    # curate
    *(("curate/tree.py", "-1) + 1", other, ORDER) for other in ("+1) + 1", "-2) + 1", "-1) + 2")),
    *(("curate/tree.py", "key=lambda one: one[:2]", other, ORDER) for other in ("key=None", "key=lambda one: one[:3]", "")),
    ("curate/votes.py", "np.where(scale > 0, scale, 1.0)", "np.where(scale > 0, scale, 2.0)", HIDDEN),
    ("curate/tree.py", "branches[pair[0]]", "branches[pair[1]]", "branch points before two leaves part lie on the paths of both"),
    *(("curate/inference_distance.py", ", dtype=float", other, NO_CAST) for other in (", dtype=None", ", ")),
    # evaluate
    ("evaluate/suites.py", "continue", "break", "Ties is the last of the subsets"),
    ("evaluate/*", ".astype(float)", ".astype(None)", FLOAT),
    ("evaluate/*", "WeightedShare(1.0, ", "WeightedShare(2.0, ", RELATIVE),
    ("evaluate/ratings.py", "get(rating, 0)", "get(rating, 1)", "no row and one row are both few"),
    ("evaluate/reward_comparison.py", "share.low is None or", "share.low is None and", "an interval has both bounds or neither"),
    ("evaluate/reward_comparison.py", "share.low <= 0.5", "share.low < 0.5", NEVER_HALF),
    ("evaluate/reward_comparison.py", "0.5 <= share.high", "0.5 < share.high", NEVER_HALF),
    *(("evaluate/*", ", dtype=object", other, "texts are compared alike in either type") for other in (", dtype=None", ", ")),
    *(("evaluate/suites.py", ", dtype=float", other, "scores are floats already") for other in (", dtype=None", ", ")),
    ("evaluate/suites.py", "reshape(-1, 2)", "reshape(-2, 2)", "NumPy takes any negative number for the one that is left"),
    # rewards
    *((f"rewards/{file}.py", f'"{text}"', f'"{other}"', WORDS) for file, text in ASSERTED for other in (f"XX{text}XX", text.upper())),
    ("rewards/*", "bias=False", "bias=None", FALSY),
    *((f"rewards/{file}.py", before, before.replace("-1", "+1"), AXES) for file, before in (
        ("bottleneck", "movedim(0, -1)"), ("bottleneck", "shape[-1:]"), ("contrast", ".mean(-1)"), ("contrast", "generator), dim=-1"),
        ("diverse_preferences", "], -1)"), ("representation", "prototypes, dim=-1"))),
    *((f"rewards/{file}.py", before + more, before, DEFAULT) for file, before, more in (
        ("contrast", "generator), ", "dim=-1"), ("representation", "prototypes, ", "dim=-1"), ("location", "(", "epsilon=HUBER, "),
        ("lort", "", 'method="bounded", '))),
    ("rewards/lort.py", 'method="bounded"', "method=None", DEFAULT),
    ("rewards/lort.py", 'method="bounded"', 'method="BOUNDED"', "SciPy reads it in either case"),
    *((f"rewards/{file}.py", before, before.replace(", 0.0)", ", 1.0)"), HIDDEN) for file, before in (
        ("attributes", "label, 0.0)"), ("attributes", "outputs, 0.0)"), ("fine_grained", "side.weight, 0.0)"), ("fine_grained", "side.outputs, 0.0)"),
        ("irl_sft", "chosen - rejected, 0.0)"), ("irl_sft", "side.weight, 0.0)"), ("irl_sft", "side.outputs, 0.0)"), ("laplace", "tokens, 0.0)"),
        ("laplace", "states, 0.0)"), ("segment", "[:, None], 0.0)"), ("step", "to_wide(values), 0.0)"),
        ("step_labels", "side.reward, 0.0)"), ("step_labels", "side.outputs, 0.0)"))),
    ("rewards/bottleneck.py", "total, 1.0)", "total, 2.0)", HIDDEN),
    ("ops/location.py", "place, 1.0)", "place, 2.0)", HIDDEN),
    ("ops/location.py", "rewards, 0.0)", "rewards, 1.0)", HIDDEN),
    *((f"rewards/{file}.py", "> 0.5", ">= 0.5", ZERO_OR_ONE) for file in ("fine_grained", "irl_sft")),
    ("rewards/bradley_terry.py", "is None or", "is None and", "one head scores both answers, so both have members or neither has"),
    ("rewards/clipped_head.py", "<= largest_score", "< largest_score", "of two boxes with the same ceiling either is the lowest"),
    ("rewards/clipped_head.py", "low > high", "low >= high", "where they are equal, so is their mean"),
    ("rewards/contrast.py", ".to(own.dtype)", ".to(None)", "whole numbers of rows are compared alike in either type"),
    ("rewards/diverse_preferences.py", "score.members is None", "(score.members is None) and False", "the head's tokens always have members"),
    ("rewards/irl_sft.py", "(0, width", "(1, width", "both answers are padded alike"),
    *(("rewards/kfac.py", "dtype=inner.dtype", other, "0 and 1 are exact in either type") for other in ("dtype=None", "")),
    ("rewards/laplace.py", '"bt,bth->bh"', '"BT,BTH->BH"', "letters of axes are names"),
    ("ops/location.py", "at + TINY", "at - TINY", "a place is 0.001 or more, so the change is below the tolerance of the fit"),
    *(("ops/location.py", "max_iter=1000", other, "a line through points is found in fewer than 100 steps") for other in ("", "max_iter=1001")),
    ("rewards/lort.py", "multinomial(1.0", "multinomial(2.0", "weights of draws are relative to one another"),
    ("rewards/lort.py", "* -(-len", "* +(-len", "the cosine is the same for a negative number of steps"),
    ("rewards/mm_calibration.py", "clipped[:, :1]", "clipped[:, :2]", "only as many as there are indices are read"),
    ("rewards/step_labels.py", "signs > 0, odds", "signs >= 0, odds", SIGNS),
    ("rewards/targets.py", "self.odds, 2", "self.odds, 3", "only whether it refuses the odds is read"),
    ("rewards/kfac.py", "joined.shape[1] <= joined.shape[0]", "joined.shape[1] < joined.shape[0]", SPEED),
    ("rewards/kfac.py", "joined.shape[1] <= joined.shape[0]", "joined.shape[1] <= joined.shape[1]", SPEED),
    ("rewards/fine_grained.py", "mask[:, :1]", "mask[:, :2]", "only the shape of the sum is read"),
    ("rewards/meta_rm.py", 'float("inf")', 'float("INF")', "the same number"),
    ("rewards/meta_rm.py", 'self.eta < float("inf")', 'self.eta <= float("inf")', "infinite settings are refused before"),
    ("rewards/meta_rm.py", "shape[-1]", "shape[+1]", AXES),
    *(("rewards/step_labels.py", "counted & (signs < 0)", f"counted & (signs {other})", SIGNS) for other in ("<= 0", "< 1")),
    ("rewards/step_labels.py", "said == (signs > 0)", "said == (signs >= 0)", SIGNS),
    ("rewards/step_labels.py", "share(signs > 0)", "share(signs >= 0)", SIGNS),
    *(("rewards/rating_labels.py", ", dtype=float", other, FLOAT) for other in (", dtype=None", ", ")),
    *((files, ".astype(float)", ".astype(None)", FLOAT) for files in ("rewards/*", "curate/*")),
    ("curate/repairs.py", 'kind="stable"', 'kind="STABLE"', "NumPy reads the first letter, whatever its case"),
    *(("evaluate/prompt_blind.py", "% 2 == 0", other, "without a constant a fit is the same, whichever pairs are swapped")
      for other in ("% 2 == 1", "% 2 != 0", "% 3 == 0")),
    ("evaluate/prompt_blind.py", '"little"', "", "256 is 1 modulo the 5 folds, so the order of the bytes does not count"),
    ("evaluate/prompt_blind.py", "signs[train] > 0", "signs[train] >= 0", "signs are 1 or -1"),
    ("evaluate/prompt_blind.py", '"utf-8"', '"UTF-8"', "names of encodings are read in any case"),
    ("evaluate/prompt_blind.py", "alternate_sign=False", "alternate_sign=None", "None counts as False"),
    *(("evaluate/prompt_blind.py", "max_iter=200", other, "fits converge in fewer steps") for other in ("max_iter=201", "")),
    ("evaluate/calibration.py", 'float("inf")', 'float("INF")', "the same number"),
    *(("evaluate/calibration.py", "dtype=int), errors)", other, SPEED) for other in ("dtype=int), None)", "dtype=int), )")),
    ("evaluate/calibration.py", "place.max()) + 1", "place.max()) + 2", "a column nobody reads"),
    ("evaluate/reward_comparison.py", "max(1, ", "max(2, ", "where the two have one such text together, they share none: 0 either way"),
    ("evaluate/reward_comparison.py", "len(a) > 1", "len(a) >= 1", "a text alone has no spread"),
    *(("evaluate/rewardbench2.py", ", dtype=float", other, FLOAT) for other in (", dtype=None", ", ")),
    ("evaluate/rewardbench2.py", "nan=0.0", "", DEFAULT),
    ("evaluate/rewardbench2.py", "seen = 2 *", "seen = 3 *", "strata are numbered in the same order"),
    ("curate/votes.py", '"L-BFGS-B"', '"l-bfgs-b"', "SciPy reads names of methods in any case"),
]  # fmt: skip
