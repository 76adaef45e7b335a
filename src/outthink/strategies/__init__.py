"""The table of strategies: one line a method, imported only when it is used.

A strategy is a frozen, keyword-only dataclass whose fields are its hyperparameters and whose coroutine `run` names
the resources it needs. From outside, pass any such object, or "module:Name".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from outthink.types import Candidate

STRATEGIES = {
    "auto": "outthink.planner.auto:Auto",
    "greedy": "outthink.strategies.parallel.greedy:Greedy",
    "best_of_n": "outthink.strategies.parallel.best_of_n:BestOfN",
    "self_consistency": "outthink.strategies.parallel.self_consistency:SelfConsistency",
    "weighted_best_of_n": "outthink.strategies.parallel.weighted_best_of_n:WeightedBestOfN",
    "majority_best": "outthink.strategies.parallel.majority_best:MajorityBest",
    "likelihood": "outthink.strategies.parallel.likelihood:Likelihood",
    "perplexity_consistency": "outthink.strategies.parallel.perplexity_consistency:PerplexityConsistency",
    "rpc": "outthink.strategies.parallel.rpc:RPC",
    "borda": "outthink.strategies.parallel.borda:Borda",
    "feature_vote": "outthink.strategies.parallel.feature_vote:FeatureVote",
    "length_vote": "outthink.strategies.parallel.length_vote:LengthVote",
    "race_vote": "outthink.strategies.parallel.race_vote:RaceVote",
    "deepconf": "outthink.strategies.parallel.deepconf:DeepConf",
    "depth_consistency": "outthink.strategies.parallel.depth_consistency:DepthConsistency",
    "parallel_probe": "outthink.strategies.parallel.parallel_probe:ParallelProbe",
    "cmc": "outthink.strategies.parallel.cmc:CMC",
    "mrt_stop": "outthink.strategies.sequential.mrt_stop:MRTStop",
    "mbr": "outthink.strategies.parallel.mbr:MBR",
    "sample_and_cluster": "outthink.strategies.parallel.sample_and_cluster:SampleAndCluster",
    "failed_step_fraction": "outthink.strategies.parallel.failed_step_fraction:FailedStepFraction",
    "heimdall": "outthink.strategies.parallel.heimdall:Heimdall",
    "hedged_sampling": "outthink.strategies.parallel.hedged_sampling:HedgedSampling",
    "chops": "outthink.strategies.parallel.chops:CHOPS",
    "codet": "outthink.strategies.parallel.codet:CodeT",
    "x_mbr": "outthink.strategies.collective.x_mbr:XMBR",
    "adaptive_consistency": "outthink.strategies.parallel.adaptive_consistency:AdaptiveConsistency",
    "esc": "outthink.strategies.parallel.esc:EarlyStopping",
    "optscale": "outthink.strategies.parallel.optscale:OptScale",
    "first_finish": "outthink.strategies.parallel.first_finish:FirstFinish",
    "multi_temperature": "outthink.strategies.parallel.multi_temperature:MultiTemperature",
    "nothinking": "outthink.strategies.parallel.nothinking:NoThinking",
    "resample": "outthink.strategies.parallel.resample:Resample",
    "cascade": "outthink.strategies.parallel.cascade:Cascade",
    "fusion": "outthink.strategies.collective.fusion:Fusion",
    "archon": "outthink.strategies.collective.archon:Archon",
    "answer_graph": "outthink.strategies.collective.answer_graph:AnswerGraph",
    "cpt": "outthink.strategies.collective.cpt:CPT",
    "debate": "outthink.strategies.collective.debate:Debate",
    "rsa": "outthink.strategies.collective.rsa:RSA",
    "pacore_prompted": "outthink.strategies.collective.pacore_prompted:PaCoRePrompted",
    "pdr": "outthink.strategies.collective.pdr:PDR",
    "elo_tournament": "outthink.strategies.collective.elo_tournament:EloTournament",
    "rtv": "outthink.strategies.collective.rtv:RTV",
    "v1_infer": "outthink.strategies.collective.v1_infer:V1Infer",
    "path_summary": "outthink.strategies.collective.path_summary:PathSummary",
    "spawn_join": "outthink.strategies.collective.spawn_join:SpawnJoin",
    "budget_forcing": "outthink.strategies.sequential.budget_forcing:BudgetForcing",
    "trimr": "outthink.strategies.sequential.trimr:TrimR",
    "revision": "outthink.strategies.sequential.revision:Revision",
    "critic_refine": "outthink.strategies.sequential.critic_refine:CriticRefine",
    "self_refine": "outthink.strategies.sequential.self_refine:SelfRefine",
    "three_d": "outthink.strategies.sequential.three_d:ThreeD",
    "scale": "outthink.strategies.sequential.scale:SCALE",
    "rebase": "outthink.strategies.search.rebase:Rebase",
    "ets": "outthink.strategies.search.ets:ETS",
    "dora": "outthink.strategies.search.dora:DORA",
    "a_star": "outthink.strategies.search.a_star:AStar",
    "qalign": "outthink.strategies.search.qalign:QAlign",
    "power_sampling": "outthink.strategies.search.power_sampling:PowerSampling",
    "parallel_tempering": "outthink.strategies.search.parallel_tempering:ParallelTempering",
    "ab_mcts": "outthink.strategies.search.ab_mcts:ABMCTS",
    "iterative_deepening": "outthink.strategies.sequential.iterative_deepening:IterativeDeepening",
    "particle_filter": "outthink.strategies.search.particle_filter:ParticleFilter",
    "particle_gibbs": "outthink.strategies.search.particle_gibbs:ParticleGibbs",
    "entropic_particle_filter": "outthink.strategies.search.entropic_particle_filter:EntropicParticleFilter",
    "pool_particles": "outthink.strategies.search.pool_particles:PoolParticles",
    "beam": "outthink.strategies.search.beam:Beam",
    "subpool_selection": "outthink.strategies.search.subpool_selection:SubpoolSelection",
    "dvts": "outthink.strategies.search.dvts:DVTS",
    "lookahead": "outthink.strategies.search.lookahead:Lookahead",
    "mcts": "outthink.strategies.search.mcts:MCTS",
}

RENAMED = {"atts": "cascade"}
"""Names that methods once had, and those that they have now."""


class Report(Protocol):
    """How a strategy says what it would answer now; the last report is the result."""

    def __call__(
        self,
        candidates: Sequence[Candidate],
        *,
        chosen: Candidate | None,
        scores: Sequence[float | None] | None = None,
        confidence: float | None = None,
        fixed: bool = False,
        early: bool = False,
        generation: int | None = None,
    ) -> None:
        """Report the candidates it chose among, their scores, the one it chose (None: none is valid).

        `fixed` says that nothing which is still to come can change which one is chosen, so that whoever waits for it
        may have it. Later reports must choose the same one, and raise ValueError where they do not. `early` says so
        before all samples are there: that is no round, for which ones are there may depend on speed, and the strategy
        reports again when they are. `generation` is the number, from 1, of a generation of answers, as in `Round`.
        """


class Strategy(Protocol):
    """What `solve` runs. `run(problem, report, *, <resources by name>)` is looked up, not typed here."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run(self) -> Any:
        """The coroutine function that runs the method on one problem."""
