import yaml
from tiny_data import head_config, write_backbone, write_manifest

from streamer.model.head import HeadKind
from streamer.training import comparison


def test_kinds_are_compared_and_an_existing_head_stands_beside_them(tmp_path):
    write_manifest(tmp_path)
    write_backbone(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(head_config(tmp_path, epochs=2, average_from=2)))
    kinds = (HeadKind.LAST_MLP, HeadKind.WA_MLP)
    comparison.main(config, tmp_path / "a", kinds=kinds[:1], rates=(1e-3,), seeds=1, progress=False)
    beside = [tmp_path / "a" / "last_mlp_0.001_0.pth"]
    report = comparison.main(
        config, tmp_path / "b", kinds=kinds, rates=(1e-3, 1e-2), seeds=2, beside=beside, progress=False
    )
    heads = report.figures["heads"]
    assert [row["head"] for row in heads] == ["last_mlp", "wa_mlp", beside[0].name]
    assert {row["rate"] for row in heads[:2]} <= {"0.001", "0.01"}
    assert heads[2]["rate"] is None
    assert len(list((tmp_path / "b").glob("*.pth"))) == 6
    assert (tmp_path / "b" / "heads.md").is_file()
