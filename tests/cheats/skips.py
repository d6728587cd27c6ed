"""Skips the module, which a test file may do."""

import pytest

pytest.skip("not today", allow_module_level=True)
