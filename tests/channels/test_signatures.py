"""Promise: what is signed here, anybody verifies, and what was not signed is refused, always."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as some

from greffier.deliver.channels.signatures import check_secret, new_secret, sign, verify
from greffier.errors import Unauthenticated

SECRET = new_secret()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = '{"content":"À bientôt, cher ami — 3 €"}'.encode()
HEADERS = sign([SECRET], "msg_1", NOW, BODY)


def test_what_we_sign_the_official_package_verifies() -> None:
    """And the other way round: one specification, two programs."""
    now = datetime.now(UTC)
    official = standardwebhooks.Webhook(SECRET)

    ours = sign([SECRET], "msg_1", now, BODY)
    assert official.verify(BODY, ours) == {"content": "À bientôt, cher ami — 3 €"}
    theirs = {**ours, "webhook-signature": official.sign("msg_1", now, BODY.decode())}
    assert verify([SECRET], theirs, BODY, now=now) == "msg_1"


def test_the_example_of_the_specification_verifies() -> None:
    """The test vector of the reference implementations."""
    headers = {
        "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "Webhook-Timestamp": "1614265330",
        "Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    now = datetime.fromtimestamp(1614265330, UTC)

    found = verify([secret], headers, b'{"test": 2432232314}', now=now)
    assert found == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_while_a_secret_is_rotated_each_side_may_be_first() -> None:
    """One common secret is enough."""
    new, old = new_secret(), new_secret()

    for ours, theirs in (([new, old], [old]), ([new], [new, old]), ([old], [new, old])):
        headers = sign(theirs, "msg_1", NOW, BODY)
        assert verify(ours, headers, BODY, now=NOW) == "msg_1"


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_message_may_be_five_minutes_old_or_ahead(seconds: int) -> None:
    """Clocks differ."""
    assert verify([SECRET], HEADERS, BODY, now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-301, 301, 86400])
def test_a_message_that_was_recorded_cannot_be_played_again_later(seconds: int) -> None:
    """Nor can one be made ahead; how far may be set."""
    now = NOW + timedelta(seconds=seconds)
    with pytest.raises(Unauthenticated, match="too far"):
        verify([SECRET], HEADERS, BODY, now=now)
    assert verify([SECRET], HEADERS, BODY, now=now, tolerance=86400)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(NOW.timestamp()) + 1)},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,,"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v1,\ud800"},
        {"webhook-signature": HEADERS["webhook-signature"].replace("v1,", "v2,")},
        {"webhook-signature": "x " * 10 + HEADERS["webhook-signature"]},
        {"webhook-id": ""},
    ],
)
def test_what_is_forged_or_malformed_is_refused(changed: dict[str, str]) -> None:
    """With 401 and never with a failure of ours."""
    with pytest.raises(Unauthenticated):
        verify([SECRET], {**HEADERS, **changed}, BODY, now=NOW)


def test_another_body_or_another_secret_is_refused() -> None:
    """One byte is enough, also one that is no text."""
    for body in (BODY + b" ", b"", b"\xff"):
        with pytest.raises(Unauthenticated):
            verify([SECRET], HEADERS, body, now=NOW)
    for secrets in ([], [new_secret()]):
        with pytest.raises(Unauthenticated):
            verify(secrets, HEADERS, BODY, now=NOW)


@given(
    some.dictionaries(
        some.sampled_from(["webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "x"]),
        some.text(),
    ),
    some.binary(),
)
def test_nothing_that_is_sent_can_make_it_fail_otherwise(
    headers: dict[str, str], body: bytes
) -> None:
    """Everything but a rightful message is refused in one way."""
    with pytest.raises(Unauthenticated):
        verify([SECRET], {**HEADERS, **headers} if headers else {}, body + b"!", now=NOW)


def test_a_secret_is_new_each_time_and_one_that_is_allowed() -> None:
    """32 random bytes, in the form every library reads."""
    first, second = new_secret(), new_secret()

    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
    assert check_secret(first, "/secret") is None


@pytest.mark.parametrize(
    ("secret", "good"),
    [
        ("whsec_" + base64.b64encode(bytes(24)).decode(), True),
        ("whsec_" + base64.b64encode(bytes(64)).decode().rstrip("="), True),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), False),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), False),
        ("whsec_" + "é" * 40, False),
        ("whsec_" + "A" * 41, False),
        ("whsec_", False),
        (base64.b64encode(bytes(32)).decode(), False),
    ],
)
def test_a_secret_of_ones_own_is_checked(secret: str, good: bool) -> None:
    """What is too short to be one is refused without being shown."""
    problem = check_secret(secret, "/secret")

    assert (problem is None) is good
