"""What is the engine to load, and how much of the box may it use for it? As the configuration says."""

from __future__ import annotations

from appliance.backends.child import EngineSpec
from appliance.config import LocalConfig
from appliance.store.store import Resolved


def engine_spec(local: LocalConfig, model: Resolved) -> EngineSpec:
    return EngineSpec(
        path=str(model.path),
        context=local.context,
        slots=local.slots,
        gpu_layers=local.gpu_layers,
        threads=local.threads,
        kv_type=local.kv_type,
        mlock=local.mlock,
        queue=local.queue,
        template=model.template,
    )
