from cascade_rl.store import StageFolder, Store


def test_the_life_of_a_stage(tmp_path):
    folder = StageFolder(tmp_path / "s-1")
    assert folder.status == "pending"
    folder.begin({"name": "s"}, {"world_size": 1})
    assert folder.status == "running"
    folder.begin({"name": "s"}, {"world_size": 2})  # the first attempt was killed without a word
    folder.finish("failed", "failed", error="why")
    folder.begin({"name": "s"}, {})
    folder.finish("complete", "complete")
    record = folder.read()
    assert folder.is_complete
    assert [a["outcome"] for a in record["attempts"]] == ["killed", "failed", "complete"]
    assert record["attempts"][1]["error"] == "why"
    assert record["seconds"] >= 0


def test_runs_are_listed(tmp_path):
    store = Store(tmp_path)
    assert store.runs() == []
    store.write_run("a", {"name": "a"})
    store.write_run("b", {"name": "b"})
    assert sorted(store.runs()) == ["a", "b"]
    assert store.read_run("c") is None
