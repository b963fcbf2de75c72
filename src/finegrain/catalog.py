"""The one table of methods: name, family, settings class, source. Strings only, so that listing it is instant.

A method's page is `docs/methods/<name>.md`, its test `tests/<family>/test_<file>.py`.
"""

import importlib
from typing import Any, NamedTuple

from finegrain.errors import UsageError, unknown_name


class Method(NamedTuple):
    """One row of the table."""

    name: str
    family: str
    """objective, credit, head or loss: the word before the colon on the command line; or segmenter, a choice within a credit; or curate and merge, methods of `finegrain curate` and `finegrain merge`; or algorithm, of `finegrain online`."""
    target: str
    """`module:Class` below `finegrain`."""
    summary: str
    source: str
    """Link to the paper, or "ours" with the page that describes it."""


METHODS: tuple[Method, ...] = (
    Method("dpo", "objective", "objectives.dpo:DPO", "logistic loss on the difference of log-ratios", "https://arxiv.org/abs/2305.18290"),
    Method("conservative", "objective", "objectives.conservative:Conservative", "cDPO: cross-entropy against labels with a known error rate", "https://ericmitchell.ai/cdpo.pdf"),
    Method("robust", "objective", "objectives.robust:Robust", "rDPO: unbiased loss under labels flipped at a known rate", "https://arxiv.org/abs/2403.00409"),
    Method("reference-free", "objective", "objectives.reference_free:ReferenceFree", "DPO on log-probabilities, without a reference", "https://arxiv.org/abs/2305.18290"),
    Method("ipo", "objective", "objectives.ipo:IPO", "squared distance of the summed margin from 1/(2 beta)", "https://arxiv.org/abs/2310.12036"),
    Method("ipo-averaged", "objective", "objectives.ipo_averaged:IPOAveraged", "ipo on log-ratios per token", "https://arxiv.org/abs/2310.12036"),
    Method("hinge", "objective", "objectives.hinge:Hinge", "hinge loss on the difference of log-ratios", "https://arxiv.org/abs/2305.10425"),
    Method("slic", "objective", "objectives.slic:SLiC", "hinge loss without reference, plus NLL of the chosen answer", "https://arxiv.org/abs/2305.10425"),
    Method("simpo", "objective", "objectives.simpo:SimPO", "logistic loss on average log-probabilities, with a target margin", "https://arxiv.org/abs/2405.14734"),
    Method("cpo", "objective", "objectives.cpo:CPO", "reference-free DPO plus NLL of the chosen answer", "https://arxiv.org/abs/2401.08417"),
    Method("orpo", "objective", "objectives.orpo:ORPO", "NLL of prompt and chosen answer plus an odds-ratio penalty", "https://arxiv.org/abs/2403.07691"),
    Method("kto", "objective", "objectives.kto:KTO", "unpaired good and bad answers against a shared KL reference point", "https://arxiv.org/abs/2402.01306"),
    Method("exo", "objective", "objectives.exo:EXO", "reverse KL to a nearly hard preference", "https://arxiv.org/abs/2402.00856"),
    Method("nca", "objective", "objectives.nca:NCA", "noise-contrastive loss that keeps the likelihood of the chosen answer up", "https://arxiv.org/abs/2402.05369"),
    Method("bco", "objective", "objectives.bco:BCO", "binary classification of chosen and rejected answers", "https://arxiv.org/abs/2404.04656"),
    Method("sppo", "objective", "objectives.sppo:SPPO", "squared distance of each log-ratio from +-1/(2 beta)", "https://arxiv.org/abs/2405.00675"),
    Method("apo-zero", "objective", "objectives.apo_zero:APOZero", "raises the chosen and lowers the rejected answer's likelihood independently", "https://arxiv.org/abs/2408.06266"),
    Method("apo-down", "objective", "objectives.apo_down:APODown", "lowers the likelihood of both answers, the rejected one further", "https://arxiv.org/abs/2408.06266"),
    Method("aot", "objective", "objectives.aot:AOT", "sorted policy margins against sorted reference margins", "https://arxiv.org/abs/2406.05882"),
    Method("aot-unpaired", "objective", "objectives.aot_unpaired:AOTUnpaired", "sorted chosen against sorted rejected log-ratios", "https://arxiv.org/abs/2406.05882"),
    Method("sigmoid-norm", "objective", "objectives.sigmoid_norm:SigmoidNorm", "DPO on log-ratios per token", "https://arxiv.org/abs/2411.15124"),
    Method("discopop", "objective", "objectives.discopop:DiscoPOP", "logistic and exponential loss mixed by the margin", "https://arxiv.org/abs/2406.08414"),
    Method("f-dpo", "objective", "objectives.f_dpo:FDPO", "DPO under forward KL, Jensen-Shannon or alpha divergence", "https://arxiv.org/abs/2309.16240"),
    Method("lcpo", "objective", "objectives.lcpo:LCPO", "any pair loss under the probability that its label is right, by annotator", "https://arxiv.org/abs/2509.24159"),
    Method("tdpo1", "objective", "objectives.tdpo1:TDPO1", "dpo plus the difference of forward KL at every position", "https://arxiv.org/abs/2404.11999"),
    Method("tdpo2", "objective", "objectives.tdpo2:TDPO2", "dpo that pays for forward KL of the rejected answer, position by position", "https://arxiv.org/abs/2404.11999"),
    Method("sparsepo", "objective", "objectives.sparsepo:SparsePO", "tdpo1 under masks of rewards and of KL that are learned with the policy", "https://arxiv.org/abs/2410.05102"),
    Method("mapo", "objective", "objectives.mapo:MaPO", "tdpo1 under a fixed mask of the reference's activations", "https://arxiv.org/abs/2410.05102"),
    Method("figa", "objective", "objectives.figa:FIGA", "likelihood of what a revision changed, up and down", "https://arxiv.org/abs/2311.04072"),
    Method("r-dpo", "objective", "objectives.r_dpo:RDPO", "DPO with the difference of the answers' lengths in its link", "https://arxiv.org/abs/2403.19159"),
    Method("dpop", "objective", "objectives.dpop:DPOP", "DPO-Positive: DPO with a penalty where the chosen answer falls below the reference", "https://arxiv.org/abs/2402.13228"),
    Method("rrhf", "objective", "objectives.rrhf:RRHF", "hinge on average log-probabilities plus NLL of the chosen answer, without a reference", "https://arxiv.org/abs/2304.05302"),
    Method("pngd", "objective", "objectives.pngd:PNGD", "normalised gradients of the two answers, which then cannot move the same way", "https://arxiv.org/abs/2410.13828"),
    Method("token-sparsity", "objective", "objectives.token_sparsity:TokenSparsity", "DPO under learned token masks in [0, 1] with an L1 penalty", "https://arxiv.org/abs/2410.13828"),
    Method("nll", "objective", "objectives.nll:NLL", "negative log-likelihood of demonstrations (SFT)", "https://arxiv.org/abs/2203.02155"),
    Method("alol", "objective", "objectives.alol:ALoL", "A-LoL: likelihood weighted by advantage, drawn by advantage; variants ratio, ref-free, seq, kl", "https://arxiv.org/abs/2305.14718"),
    Method("r-lol", "objective", "objectives.r_lol:RLoL", "a-lol with the reward itself in place of the advantage", "https://arxiv.org/abs/2305.14718"),
    Method("wbc", "objective", "objectives.wbc:WBC", "weighted behaviour cloning: likelihood weighted by reward", "https://arxiv.org/abs/2006.15134"),
    Method("gold", "objective", "objectives.gold:GOLD", "likelihood weighted by reward and by each token's own probability", "https://arxiv.org/abs/2009.07839"),
    Method("pro", "objective", "objectives.pro:PRO", "K ranked answers, each against all below it, plus likelihood of the best", "https://arxiv.org/abs/2306.17492"),
    Method("arj", "objective", "objectives.arj:ARJ", "SFT on accepted samples under token credit", "https://arxiv.org/abs/2411.00809"),
    Method("ava-d", "objective", "objectives.ava_d:AvaD", "policy and token reward with uncertainty from demonstrations, by variational inverse RL", "https://arxiv.org/abs/2411.09341"),
    Method("ava-p", "objective", "objectives.ava_p:AvaP", "policy and token reward with uncertainty from pairs, by variational inverse RL", "https://arxiv.org/abs/2411.09341"),
    Method("cpl", "objective", "objectives.cpl:CPL", "discounted segment scores, the rejected one scaled down: multi-turn and partial segments", "https://arxiv.org/abs/2310.13639"),
    Method("bfpo", "objective", "objectives.bfpo:BFPO", "ipo whose target says how helpful and how safe both answers are", "https://arxiv.org/abs/2408.15313"),
    Method("irl-sft", "objective", "objectives.irl_sft:IRLSFT", "one round of inverse RL: demonstrations against the opponent's samples", "https://arxiv.org/abs/2405.17888"),
    Method("selm", "objective", "objectives.selm:SELM", "dpo, pushed away from the round's own answer: optimism, for rounds:selm", "https://arxiv.org/abs/2405.19332"),
    Method("token-distillation", "objective", "objectives.token_distillation:TokenDistillation", "regress log-ratios on token rewards", "ours: docs/methods/token-distillation.md"),
    Method("asr", "credit", "credit.asr:ASR", "trains only on segments whose own score agrees with the label", "https://arxiv.org/abs/2411.00809"),
    Method("confidence", "credit", "credit.confidence:Confidence", "soft weights: the scorer's confidence in each segment", "ours: docs/methods/confidence.md"),
    Method("token-reward", "credit", "credit.token_reward:TokenReward", "a scorer's token rewards as targets, with their certainty", "ours: docs/methods/token-reward.md"),
    Method("compose", "credit", "credit.compose:Compose", "a signal, a segmenter and an allocation of your choice", "ours: docs/methods/compose.md"),
    Method("function", "credit", "credit.function:Function", "weights of character spans from your own function", "ours: docs/methods/function.md"),
    Method("sequence", "head", "rewards.sequence:Sequence", "one number per answer, at its last token", "https://arxiv.org/abs/2203.02155"),
    Method("token", "head", "rewards.token:Token", "one number per token, aggregated to the answer's score", "https://arxiv.org/abs/2306.00398"),
    Method("gaussian", "head", "rewards.gaussian:Gaussian", "mean and standard deviation per token", "https://arxiv.org/abs/2411.09341"),
    Method("ensemble", "head", "rewards.ensemble:Ensemble", "several numbers per token, each trained with its own weights of the pairs", "https://arxiv.org/abs/2409.15360"),
    Method("gaussian-ensemble", "head", "rewards.gaussian_ensemble:GaussianEnsemble", "several means with their standard deviations per token", "https://arxiv.org/abs/2409.15360"),
    Method("diverse-preferences", "head", "rewards.diverse_preferences:Latent", "stochastic codes kept close to a prior, members weighted by confidence", "https://arxiv.org/abs/2301.11774"),
    Method("segment", "head", "rewards.segment:Segment", "one number per segment; segments begin at high entropy of the start model", "https://arxiv.org/abs/2501.02790"),
    Method("step", "head", "rewards.step:Step", "log-odds that each labelled step is right", "https://arxiv.org/abs/2305.20050"),
    Method("rating", "head", "rewards.rating:Rating", "a distribution over the classes of a rating scale", "https://arxiv.org/abs/2403.00250"),
    Method("attributes", "head", "rewards.attributes:Attributes", "a regression head for each of several ratings; the score is their weighted sum", "https://arxiv.org/abs/2406.08673"),
    Method("bradley-terry", "loss", "rewards.bradley_terry:BradleyTerry", "logistic loss on the difference of two scores; margin, soft label, flip, weight, tie by column", "https://arxiv.org/abs/2401.06080"),
    Method("irl-insights", "loss", "rewards.irl_insights:IRLInsights", "ranks a tuned model's answers above its base model's", "https://arxiv.org/abs/2410.12491"),
    Method("irl-sft", "loss", "rewards.irl_sft:IRLSFT", "classifies demonstrations against samples, token by token from the first difference on (head:token)", "https://arxiv.org/abs/2405.17888"),
    Method("ava-d", "loss", "rewards.ava_d:AvaD", "token reward with uncertainty from demonstrations (head:gaussian)", "https://arxiv.org/abs/2411.09341"),
    Method("ava-p", "loss", "rewards.ava_p:AvaP", "token reward with uncertainty from pairs (head:gaussian)", "https://arxiv.org/abs/2411.09341"),
    Method("brme", "loss", "rewards.brme:BRME", "Gaussian heads learn a stage-1 reward on a frozen backbone (head:gaussian-ensemble)", "https://arxiv.org/abs/2409.15360"),
    Method("diverse-preferences", "loss", "rewards.diverse_preferences:DiversePreferences", "pair loss with a strong KL on stochastic codes (head:diverse-preferences)", "https://arxiv.org/abs/2301.11774"),
    Method("step-labels", "loss", "rewards.step_labels:StepLabels", "cross-entropy of labelled steps, all or up to the first error (head:step)", "https://arxiv.org/abs/2305.20050"),
    Method("secrets-rm", "loss", "rewards.secrets_rm:SecretsRM", "pair loss with a floor under the probability, plus language modelling of the chosen answer", "https://arxiv.org/abs/2401.06080"),
    Method("secrets-rm", "curate", "curate.secrets_rm:SecretsRM", "models vote on pairs they did not train on: margins, flips, soft labels", "https://arxiv.org/abs/2401.06080"),
    Method("mpo", "curate", "curate.mpo:MPO", "pairs split into easy and hard by cross-fitted margins: for rounds:mpo", "https://arxiv.org/abs/2403.19443"),
    Method("tree-rm", "curate", "curate.tree_rm:TreeRM", "pairs of leaves of a tree of responses with shared prefixes", "https://arxiv.org/abs/2402.10184"),
    Method("soup", "merge", "weights.soup:Soup", "weighted mean of models fine-tuned from one base", "https://arxiv.org/abs/2203.05482"),
    Method("expo", "merge", "weights.expo:Expo", "extrapolates an aligned model away from its start", "https://arxiv.org/abs/2404.16792"),
    Method("slerp", "merge", "weights.slerp:Slerp", "spherical interpolation of two models, tensor by tensor", "https://arxiv.org/abs/2403.13257"),
    Method("task-arithmetic", "merge", "weights.task_arithmetic:TaskArithmetic", "adds what several models learnt to their base", "https://arxiv.org/abs/2212.04089"),
    Method("ppo", "algorithm", "online.ppo:PPO", "a critic's advantages under a clipped ratio, the KL in the reward", "https://arxiv.org/abs/1707.06347"),
    Method("grpo", "algorithm", "online.grpo:GRPO", "an answer's reward against those of the other answers to its prompt, normalised", "https://arxiv.org/abs/2402.03300"),
    Method("rloo", "algorithm", "online.rloo:RLOO", "an answer's reward minus the mean of the other answers to its prompt", "https://arxiv.org/abs/2402.14740"),
    Method("reinforce-pp", "algorithm", "online.reinforce_pp:ReinforcePP", "REINFORCE++: the reward to go, whitened over the buffer", "https://arxiv.org/abs/2501.03262"),
    Method("rating-labels", "loss", "rewards.rating_labels:RatingLabels", "cross-entropy of ratings towards one-hot, ordinal or over-smoothed targets (head:rating)", "https://arxiv.org/abs/2403.00250"),
    Method("attributes", "loss", "rewards.attributes:AttributeRatings", "squared error of several ratings, a column each (head:attributes)", "https://arxiv.org/abs/2406.08673"),
    Method("span-labels", "loss", "rewards.span_labels:SpanLabels", "tokens inside annotators' spans against those outside, with pairs (head:token, head:gaussian)", "https://arxiv.org/abs/2306.01693"),
    Method("fine-grained", "loss", "rewards.fine_grained:FineGrained", "pair loss on the tokens changed by a minimal edit (head:token)", "https://arxiv.org/abs/2406.02756"),
    Method("dynamic-topk", "segmenter", "ops.segmenters:Dynamic", "segments begin at local peaks of change that are at least average", "https://arxiv.org/abs/2310.05619"),
    Method("change-point", "segmenter", "ops.segmenters:ChangePoint", "the most probable partition into constant levels", "ours: docs/methods/change-point.md"),
)


def names(family: str) -> list[str]:
    """Names of one family, in table order."""
    return [method.name for method in METHODS if method.family == family]


def find(family: str, name: str) -> Method:
    """The row of a name; an unknown name raises with the near ones."""
    for method in METHODS:
        if (method.family, method.name) == (family, name):
            return method
    if ":" in name:
        raise UsageError(f"the {family} {name!r} is not in the catalog; pass methods of your own from Python; a run of such a method can only be repeated from Python")
    raise unknown_name(family, name, names(family))


def load(family: str, name: str) -> type[Any]:
    """The settings class of a name."""
    module, _, attribute = find(family, name).target.partition(":")
    settings: type[Any] = getattr(importlib.import_module(f"finegrain.{module}"), attribute)
    return settings


def get_name(settings: object) -> str | None:
    """The catalog name of a settings object; None for one that is not in the catalog."""
    target = f"{type(settings).__module__.removeprefix('finegrain.')}:{type(settings).__qualname__}"
    return next((method.name for method in METHODS if method.target == target), None)
