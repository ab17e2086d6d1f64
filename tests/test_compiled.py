import resource

import numba
from numba.core.caching import CompileResultCacheImpl

from ffcv_imagenet import compiled
from ffcv_imagenet.compiled import cached_njit


def test_a_full_disk_under_the_cache_of_compiled_code_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled._OptionalCache, "warned", False)

    @cached_njit()
    def double(number):
        return 2 * number

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # the closest to a full disk
    try:
        assert [double(3), double(1.5)] == [6, 3.0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: compiled code is not kept in {tmp_path}/")
    assert line.endswith(": File too large; the next start compiles it again")
    assert not list(tmp_path.rglob("*.nbc"))
    assert double(1j) == 2j
    assert list(tmp_path.rglob("*.nbc"))


def test_without_a_folder_for_the_cache_it_goes_on_and_names_the_variable(monkeypatch, capsys):
    assert compiled._has_cache_folder()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    assert not compiled._has_cache_folder()
    assert "NUMBA_CACHE_DIR=FOLDER" in capsys.readouterr().err
