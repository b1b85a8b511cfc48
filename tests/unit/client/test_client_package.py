"""What a program imports: ``replicad.client`` has all that its own words name."""

from __future__ import annotations

import re

import pytest

from replicad import client, errors

ERRORS = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}


@pytest.mark.parametrize("of", [client.AsyncClient, client.Client, client.Encryption], ids=lambda of: of.__name__)
def test_every_error_that_a_class_is_said_to_raise_can_be_imported_beside_it(of: type) -> None:
    texts = [of.__doc__, *(each.__doc__ for each in vars(of).values() if callable(each))]
    named = ERRORS.intersection(re.findall(r"\b[A-Z]\w+", " ".join(filter(None, texts))))
    assert named <= set(client.__all__)
