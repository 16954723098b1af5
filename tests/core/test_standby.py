import pytest

from appliance.core.standby import Facts, worthwhile


def facts(delta=1000, speed=100.0, idle=True, suspicion=0.0):
    return Facts(delta=delta, prefill_speed=speed, idle=idle, suspicion=suspicion)


@pytest.mark.parametrize(
    ("mode", "known", "worth"),
    [
        ("cold", facts(delta=1, suspicion=9.0), False),
        ("hot", facts(delta=100_000, idle=False), True),
        ("auto", facts(delta=2000), True),  # 20 s on an idle box
        ("auto", facts(delta=2001), False),
        ("auto", facts(delta=100, idle=False), True),  # 1 s on a busy one: a short delta on a known prefix
        ("auto", facts(delta=101, idle=False), False),
        ("auto", facts(delta=100_000, speed=8000.0), True),  # a GPU
        ("auto", facts(delta=100_000, idle=False, suspicion=1.0), True),
        ("auto", facts(delta=100_000, idle=False, suspicion=0.9), False),
        ("auto", facts(speed=None), True),
        ("auto", facts(speed=None, idle=False), False),
    ],
)
def test_it_is_worth_it_when_it_is_cheap_or_when_the_cloud_is_suspicious(mode, known, worth):
    assert worthwhile(mode, known) is worth
