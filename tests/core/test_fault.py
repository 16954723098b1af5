"""What does an error tell of itself?"""

from appliance.core.fault import BackendError, Fault, Reply


def test_an_error_is_its_sentence_and_carries_what_the_cloud_said():
    reply = Reply(status=400, body=b"{}")
    error = BackendError(
        Fault.REQUEST, "No such field.", status=400, retry_after=1.0, reply=reply, code="bad", param="n"
    )
    assert (str(error), error.message, error.fault) == ("No such field.", "No such field.", Fault.REQUEST)
    assert (error.status, error.retry_after, error.reply, error.code, error.param) == (400, 1.0, reply, "bad", "n")


def test_an_error_that_says_nothing_more_carries_nothing_more():
    error = BackendError(Fault.SILENT, "Nothing came.")
    assert (error.status, error.retry_after, error.reply, error.code, error.param) == (None,) * 5
