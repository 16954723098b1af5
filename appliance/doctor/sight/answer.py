"""Loads the model in an engine process of its own and has it answer, as the service would."""

from __future__ import annotations

from appliance.backends.process import Engine, EngineSpec
from appliance.config import Config
from appliance.core.chat import BackendError
from appliance.doctor.checks.engine import Answer
from appliance.store.store import StoreError, resolve

SECONDS = 600.0


async def look(config: Config) -> Answer:
    """It is ready when it has really answered."""
    local = config.local
    try:
        model = resolve(local.model, config)
    except StoreError as error:
        return Answer(trouble=str(error))
    spec = EngineSpec(
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
    engine = Engine(spec)
    await engine.start()
    try:
        ready = await engine.wait_ready(SECONDS)
    except (BackendError, TimeoutError) as error:
        return Answer(trouble=str(error) or "it took too long")
    finally:
        await engine.stop()
    return Answer(load_s=ready.load_s, tok_s=ready.tok_s, steps_down=ready.steps_down)
