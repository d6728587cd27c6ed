"""What all tests share: XLA's compiled programs are kept between tests and runs, since tiny ports compile for longer
than they run."""

from __future__ import annotations

import jax


def pytest_configure(config):
    cache = getattr(config, "cache", None)
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
