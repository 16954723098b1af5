"""What do clouds say when they refuse? Codes and types first, then phrases.

One table for all of OpenAI's and Anthropic's kind: clouds imitate each other, and a gateway speaks several tongues at
once. What a row means for us stands in `complaints`.
"""

from __future__ import annotations

import re

MONEY = frozenset(
    """insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
    organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active insufficient_balance
    insufficient_credits insufficient_user_quota account_deactivated billing_error enforced_spend_limit_reached
    contract_spend_limit_reached linked_organization_spend_limit_reached linked_organization_billing_unavailable
    user_profile_not_billable user_profile_billing_not_authorized exceeded_current_quota_error arrearage
    billing_disabled""".split()
)
ACCESS = frozenset(
    """invalid_api_key incorrect_api_key authentication_error invalid_authentication unauthenticated
    unsupported_country_region_territory organization_on_hold api_key_scope_missing key_profile_mismatch
    workspace_policy_violation api_key_invalid api_key_expired api_key_service_blocked service_disabled
    consumer_suspended""".split()
)
DENIED = frozenset("permission_error permission_denied not_found_error failed_precondition".split())
"""It depends on what of: the cloud, a model, or something of the caller's."""
NO_MODEL = frozenset(
    """model_not_found invalid_model unknown_model unsupported_model model_not_supported model_not_available
    model_decommissioned model_deprecated deploymentnotfound""".split()
)
FULL = frozenset("context_length_exceeded context_window_exceeded exceed_context_size_error".split())
FILTERED = frozenset(
    """content_policy_violation content_filter responsibleaipolicyviolation moderation_blocked invalid_prompt
    cyber_policy_violation""".split()
)
HURRIED = frozenset(
    """rate_limit_exceeded rate_limit_error rate_limit_reached too_many_requests resource_exhausted overloaded_error
    server_is_overloaded engine_overloaded slow_down""".split()
)
MISTAKEN = frozenset(
    """invalid_request_error bad_request invalid_argument unsupported_parameter unsupported_value
    string_above_max_length request_too_large""".split()
)
FAILED = frozenset(
    """server_error internal_error internal_server_error internal service_unavailable_error api_error
    timeout_error""".split()
)

UNKNOWN_MODEL = "model_not_found"
"""The one code by which the rest of the box knows that a cloud has no such model."""

TOKENS = re.compile(
    r"maximum context length|context length (?:of|is|exceeded)|exceeds? the (?:available |model'?s? )?context|"
    r"context window|prompt is too long|exceeds? context limit|required for long context|"
    r"exceeds the maximum number of tokens|maximum prompt length|exceeded model token limit|input is too long|"
    r"prompt exceeds max length|range of input length",
    re.IGNORECASE,
)
SPENT = re.compile(
    r"credit balance|insufficient (?:credits?|balance|funds|quota)|(?:more|no|out of|requires) credits|"
    r"exceeded your current quota|quota (?:is |was |has been )?(?:exceeded|exhausted)|billing (?:hard |soft )?limit|"
    r"billing details|billing (?:account|is not|not active)|enable billing|spend(?:ing)? limit|payment required|"
    r"(?:reached|exceeded) your (?:\w+ ){0,3}usage limits?",
    re.IGNORECASE,
)
KEY = re.compile(
    r"(?:invalid|incorrect|expired|missing|no) (?:x-)?api[ _-]?key|"
    r"api[ _-]?key (?:is |was )?(?:not valid|invalid|expired)|"
    r"organization has been disabled|credential is only authorized",
    re.IGNORECASE,
)
COUNTRY = re.compile(
    r"location is not supported|not (?:available|supported) in your (?:country|region)|unsupported country",
    re.IGNORECASE,
)
NO_MODEL_SAID = re.compile(
    r"^(?:model not exist|(?:invalid|unknown) model(?: name| id)?(?::| passed\b| specified\b|$)|no such model\b|"
    r"(?:the )?(?:requested )?model(?: \S+)? (?:does not exist|(?:is |was )?not found|has been decommissioned|"
    r"is (?:deprecated|no longer supported|not supported$|not supported\.)))|"
    r"^\S+ is not a valid model id|unexpected model name format",
    re.IGNORECASE,
)
_THING = (
    r"(?:(?:previous|input|output|message|vector store) )?"
    r"(?:file|image|audio|document|upload|response|item with id|vector store|assistant|thread|batch|container|skill|"
    r"prompt|conversation|fine[- ]tun(?:e|ing)|cached? ?content)s?\b"
)
_OUR_THING = r"\b(?:models?|deployments?|engines?|endpoints?|api|keys?|urls?)(?![-\w]|\.\w)"
OWN_THING = re.compile(
    rf"^(?:the )?{_THING}(?:(?!{_OUR_THING}).){{0,120}}?(?:not found|not be found|not exist|expired|not in an)\b|"
    rf"^(?:no such|not found:|could not find|you do not have permission to access)(?: the)? {_THING}(?! {_OUR_THING})|"
    rf"^no {_THING}(?: \w+)? (?:found|with id)\b",
    re.IGNORECASE,
)
"""What a caller names by an id, and only he knows whether it exists. Codes say it in the same words."""
NO_FIELD = re.compile(
    r"|none|null|(?:x-)?api[_-]key|authorization|(?:(?:body|\w+request)\.)?(?:model|deployment|engine)(?:_id|_name)?",
    re.IGNORECASE,
)
"""In the place of a field at fault: nothing, a gateway's word for nothing, our key, or the model, which may be ours."""
FIELD = re.compile(
    r"^(?:\* )?(?:(?:body|\w+Request)\.)?(?:[a-z_]+(?:\.\d+|\[\d+\])|messages|system|prompt|input|instructions|"
    r"contents|tools|tool_choice|functions|function_call|metadata|stop|stop_sequences|response_format|thinking|reasoning|"
    r"output_config|output_format|container|mcp_servers|context_management)(?:[:\[]|\.\S)"
)
"""A sentence that begins with the path of a field."""
TOO_MUCH = re.compile(r"^request too large for", re.IGNORECASE)
QUOTED = re.compile(
    r"\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)|`(?:[^`\\]|\\.)*+(?:`|\\?\Z)|(?<!\w)'(?:[^'\\]|\\.|'(?=\w))*+(?:'|\\?\Z)",
    re.DOTALL,
)
"""Up to the end, where a quotation is not closed."""
CLOUDFLARES = re.compile(rb"error code: \d{3,4}\s*")
FLAGGED = re.compile(r"content management policy|content policy|moderation|input was flagged", re.IGNORECASE)
