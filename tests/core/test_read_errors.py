"""The numbers that a system gives, and what is said of them."""

import errno

from farm.core.read_errors import FILE, MACHINE, PLACE, named, said


def test_a_number_is_of_one_kind():
    assert not (FILE & PLACE or FILE & MACHINE or PLACE & MACHINE)
    assert {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ECONNRESET} <= PLACE


def test_what_a_place_may_be_behind_is_named():
    assert said(OSError(errno.EIO, "Input/output error")) == named(errno.EIO)
    assert named(errno.EIO).startswith("EIO (")
    assert said(OSError(errno.ENOENT, "No such file")) == "No such file"
    assert said(OSError("odd")) == "odd"
