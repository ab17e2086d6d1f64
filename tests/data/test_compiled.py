"""Where numba keeps what it compiles."""

from numba.core.caching import CompileResultCacheImpl

from ffcv_imagenet.data.read import compiled


def test_without_a_folder_for_the_cache_it_goes_on_and_names_the_variable(monkeypatch, capsys):
    assert compiled._has_cache_folder()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    assert not compiled._has_cache_folder()
    assert "NUMBA_CACHE_DIR=FOLDER" in capsys.readouterr().err
