import inspect

import pytest

import lamina


def test_every_public_name_is_there_and_is_what_its_room_calls_it():
    for name in lamina.__all__:
        assert getattr(lamina, name).__name__ == name
    assert set(lamina.__all__) <= set(dir(lamina))
    assert lamina.__all__ == sorted(lamina.__all__)


def test_a_name_that_is_not_public_is_rejected():
    with pytest.raises(AttributeError, match="module 'lamina' has no attribute 'Trainer'"):
        # asking is the test
        lamina.Trainer  # asking is the test  # noqa: B018


def test_every_public_name_and_its_methods_have_a_docstring():
    bare = []
    for name in lamina.__all__:
        public = getattr(lamina, name)
        members = {} if not inspect.isclass(public) else vars(public)
        documented = {name: public} | {
            f"{name}.{member}": value
            for member, value in members.items()
            if not member.startswith("_")
            and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        }
        bare += [path for path, value in documented.items() if not inspect.getdoc(value)]
    assert bare == []
