"""Loads the model in an engine process of its own and has it answer, as the service would."""

from __future__ import annotations

from appliance.backends.process import Engine
from appliance.config import Config
from appliance.core.fault import BackendError
from appliance.doctor.checks.engine import Trial
from appliance.spec import engine_spec
from appliance.store.store import StoreError, resolve

SECONDS = 600.0


async def look(config: Config) -> Trial:
    """It is ready when it has really answered."""
    try:
        model = resolve(config.local.model, config)
    except StoreError as error:
        return Trial(trouble=str(error))
    engine = Engine(engine_spec(config.local, model))
    await engine.start()
    try:
        ready = await engine.wait_ready(SECONDS)
    except (BackendError, TimeoutError) as error:
        return Trial(trouble=str(error) or "it took too long")
    finally:
        await engine.stop()
    return Trial(load_s=ready.load_s, tok_s=ready.tok_s, steps_down=ready.steps_down)
