"""Lists the claims that no logout token may have beside those of the specification."""

# Claims that the specification reserves: neither `claims` nor `reason_claim` may name them (B10–B14).
RESERVED_CLAIMS = frozenset({"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "sid", "events", "nonce"})
IDENTIFYING_CLAIMS = frozenset(
    {
        "acr", "act", "address", "amr", "athash", "authtime", "azp", "birthdate", "chash", "clientid", "cnf",
        "familyname", "gender", "givenname", "mayact", "middlename", "name", "nickname", "oid", "picture", "profile",
        "shash", "scp", "subjwk", "uid", "uniquename", "upn", "website", "wids",
    }
)  # fmt: skip
_IDENTIFYING_PARTS = (
    "access", "accountname", "admin", "authorit", "authoriz", "claim", "entitlement", "group", "identit",
    "kubernetesio", "login", "mail", "memberof", "permission", "phone", "privilege", "role", "scope", "user",
)  # fmt: skip


def is_identifying_claim(claim: str) -> bool:
    """Return True if services may use a claim of this name to identify or authorize a user.

    A token with such a claim could pass for an ID token or an access token, so no logout token has one. Case and
    characters other than letters are ignored: `cognito:groups` and `https://example.com/roles` name groups and roles.
    """
    letters = "".join(filter(str.isalpha, claim.lower()))
    return letters in IDENTIFYING_CLAIMS or any(part in letters for part in _IDENTIFYING_PARTS)
