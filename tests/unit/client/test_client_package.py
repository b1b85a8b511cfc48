"""What a program imports: ``replicad.client`` has all that its own words name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection

import pytest

from replicad import client, errors

ERRORS = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}


@pytest.mark.parametrize("of", [client.AsyncClient, client.Client, client.Encryption], ids=lambda of: of.__name__)
def test_every_error_that_a_class_is_said_to_raise_can_be_imported_beside_it(of: type) -> None:
    texts = [of.__doc__, *(each.__doc__ for each in vars(of).values() if callable(each))]
    named = ERRORS.intersection(re.findall(r"\b[A-Z]\w+", " ".join(filter(None, texts))))
    assert named <= set(client.__all__)


#: What the blocking client is made of.
ASYNC_ALONE = {"post_content", "lane_key"}


def parameters(of: type, but: Collection[str] = ()) -> dict[str, list[str]]:
    public = {name: each for name, each in vars(of).items() if callable(each) and not name.startswith("_")}
    return {name: list(inspect.signature(each).parameters) for name, each in public.items() if name not in but}


def test_the_blocking_client_takes_the_same_calls_as_the_other() -> None:
    assert parameters(client.Client) == parameters(client.AsyncClient, but=ASYNC_ALONE)
