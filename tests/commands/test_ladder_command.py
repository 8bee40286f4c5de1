"""The ladder from the command line: what each rung's training reads, what labels cost, what is said of it all."""

import json
import shutil

import numpy as np
import pytest
import torch
from dummy_data import save_mask
from ladder_data import write_ladder

from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.pool import choose
from segladder.data.labels.prices import Prices
from segladder.data.sources.decoding import read_mask
from segladder.data.sources.folder import Folder
from segladder.data.sources.items import Items
from segladder.runs.choices import check_choices
from segladder.runs.composition import composed
from segladder.runs.loading import trained_method
from segladder.stages import chain as chains
from segladder.stages.pseudo_masks import THRESHOLDS

SMALL = [
    *("data=folder", "data.folds=[[apple,brick],[cloud,drum]]", "protocol=ladder", "pool=8", "backbone.width=8"),
    *("protocol.gamma_images=4", "protocol.bootstrap=20", "loader.workers=0"),
    *("loader.augment.crop=64", "loader.augment.scale=[1,1]", "loader.batch_size=4", "trainer.steps=2"),
    *("trainer.progress=false", "trainer.panels=0", "logger=none"),
]
RUNGS = {
    "floor": ["method=fcn8s", "pool=0", "tag=floor"],
    "masks": ["method=fcn8s", "tag=masks"],
    "seeds": ["method=cam", "trainer.panels=1"],
    "tags": [
        "method=fcn8s",
        "parent={}/seeds",
        *("pseudo_masks.classes=novel", "pseudo_masks.background=base"),
        "tag=tags",
    ],
    "supports": ["method=prototype", "backbone.weights={}/floor", "protocol.shots=2", "trainer.panels=1"],
    "names": ["method=spnet"],
}
PRICES = Prices()


def words(root, name, runs):
    own = [word.format(runs) for word in RUNGS[name]]
    place = [f"data.root={root}", f"embeddings.sources=[{root}/vectors.csv]", f"hydra.run.dir={runs}/{name}"]
    return ["train", *SMALL, *own, *place]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(root, segladder, tmp_path_factory):
    """A folder of finished runs, one for each rung."""
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNGS:
        assert segladder(*words(root, name, folder)) == 0
    return folder


def record(runs, name):
    return json.loads((runs / name / "record.json").read_text())


@pytest.fixture(scope="module")
def pool(root):
    source = Folder(root)
    return choose(Items.read(source, source.split("train"), "none"), (1, 2), 8)


def held(root, ids, classes):
    return sum(k in np.unique(read_mask(root / "masks" / f"{i}.png")) for i in ids for k in classes)


def test_every_rung_is_scored_on_the_same_items_and_knows_its_cost(root, runs, pool):
    found = {name: record(runs, name) for name in RUNGS}
    assert len({(r["protocol"]["hash"], r["protocol"]["items"]) for r in found.values()}) == 1
    assert {name: r["supervision"] for name, r in found.items()} == {
        **{"floor": "full", "masks": "full", "seeds": "image_level", "tags": "image_level"},
        **{"supports": "few_shot", "names": "zero_shot"},
    }
    outline = PRICES.mask * PRICES.objects / PRICES.classes
    pairs = held(root, pool.images, (1, 2))
    novel = {
        "floor": 0,
        "masks": 16 - pairs + pairs * outline,
        "seeds": 16,
        "tags": 16,
        "supports": 4 * outline,
        "names": 0,
    }
    drawn = {
        ids: 2 * len(ids) + held(root, ids, (3, 4)) * (outline - 1) for ids in (pool.base, pool.base + pool.images)
    }
    base = {name: drawn[pool.base] for name in ("floor", "supports", "names")}
    base |= {name: drawn[pool.base + pool.images] for name in ("masks", "tags")}
    base["seeds"] = 2 * len(pool.base + pool.images)
    for name, r in found.items():
        assert r["annotation_cost"]["novel_seconds"] == pytest.approx(novel[name], abs=0.1), name
        assert r["annotation_cost"]["seconds"] == pytest.approx(base[name] + novel[name], abs=0.2), name
    assert found["supports"]["shots"] == 2 and found["masks"]["shots"] is None


def test_a_few_shot_rung_is_scored_with_more_supports_beside_itself(runs, segladder, tmp_path, capsys):
    supports = tmp_path / "supports"
    shutil.copytree(runs / "supports", supports)
    for shots in (1, 3):
        assert segladder("evaluate", f"run={supports}", f"shots={shots}", "progress=false", "panels=0") == 0
    first = record(runs, "supports")
    found = {path.parent.name: json.loads(path.read_text()) for path in supports.glob("evaluations/*/record.json")}
    rung = f"ladder-{first['protocol']['hash']}"
    assert {name: r["shots"] for name, r in found.items()} == {f"{rung}-1shot": 1, f"{rung}-3shot": 3}
    base = first["annotation_cost"]["seconds"] - first["annotation_cost"]["novel_seconds"]
    for r in found.values():
        assert r["protocol"] == first["protocol"] and r["id"] != first["id"]
        cost, expected = r["annotation_cost"], r["shots"] * 2 * Masks().price(PRICES)
        assert (cost["novel_seconds"], cost["seconds"]) == pytest.approx((expected, base + expected), abs=0.2)
    capsys.readouterr()
    assert segladder("evaluate", f"run={runs}/names", "protocol=semantic", "shots=5") == 2
    assert "shots=5: protocol semantic has no supports" in capsys.readouterr().err


def test_a_dense_network_trains_on_with_few_masks(root, runs, segladder, tmp_path, capsys):
    tuned = [word for word in words(root, "masks", tmp_path) if not word.startswith(("tag", "pool"))]
    tuned += ["tag=tuned", "pool=4", "loader.balanced=true", f"start={runs}/floor", "method.optimizer.lr=1e-12"]
    assert segladder(*tuned) == 0
    made, floor = record(tmp_path, "masks"), record(runs, "floor")
    first, then = (
        torch.load(place / "weights.pt", weights_only=True) for place in (runs / "floor", tmp_path / "masks")
    )
    assert all(torch.allclose(first[key], then[key], atol=1e-6) for key in first if "_" not in key.rsplit(".", 1)[-1])
    assert floor["id"] in made["parents"] and made["backbone"]["pretraining"] == "fcn8s on folder"
    assert made["label_access"]["seen"] == {name: ["masks"] for name in ("apple", "brick", "cloud", "drum")}
    assert 0 < made["annotation_cost"]["novel_seconds"] < record(runs, "masks")["annotation_cost"]["novel_seconds"]
    capsys.readouterr()
    for start, complaint in {
        f"{runs}/masks": "has learnt novel classes of fold=0 as full with pool=8, but this run is full with pool=4",
        f"{runs}/seeds": "that run is method=cam of apple, brick, cloud, drum; expected method=fcn8s",
        f"{tmp_path}/nowhere": "no record.json there, expected the folder of a run",
    }.items():
        assert segladder(*tuned, f"start={start}", f"hydra.run.dir={tmp_path}/refused") == 2
        assert complaint in capsys.readouterr().err and not (tmp_path / "refused").exists()
    assert segladder(*tuned, "backbone.width=4", f"hydra.run.dir={tmp_path}/refused") == 2
    assert "that run has another network" in capsys.readouterr().err


def test_new_classes_are_imprinted_on_what_knows_the_base_classes(root, segladder, tmp_path, capsys):
    plain = [word for word in words(root, "masks", tmp_path) if not word.startswith(("tag", "pool", "method", "hydra"))]
    plain += ["method=imprinted"]
    assert segladder(*plain, "pool=0", f"hydra.run.dir={tmp_path}/base") == 0
    on = [*plain, "method.trains=false", f"start={tmp_path}/base"]
    assert segladder(*on, "pool=4", f"hydra.run.dir={tmp_path}/imprinted") == 0
    made, base = record(tmp_path, "imprinted"), record(tmp_path, "base")
    first, then = (torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("base", "imprinted"))
    changed = first["network.weights"].ne(then["network.weights"]).any(1).tolist()
    assert changed == [False, True, True, False, False] and first["learnt"].sum() + 2 == then["learnt"].sum() == 5
    assert made["annotation_cost"]["novel_seconds"] > 0 == base["annotation_cost"]["novel_seconds"]
    assert made["label_access"]["seen"]["apple"] == ["masks"] and "apple" not in base["label_access"]["seen"]
    capsys.readouterr()
    assert segladder(*on, "pool=0", f"hydra.run.dir={tmp_path}/none") == 2
    assert "no labelled image shows a class that start=RUN has not met" in capsys.readouterr().err


def test_a_few_shot_rung_may_say_no_in_rows_of_its_own(runs, segladder, tmp_path, capsys):
    supports = tmp_path / "supports"
    shutil.copytree(runs / "supports", supports)
    for presence in ("calibrated", "competing"):
        assert segladder("evaluate", f"run={supports}", f"presence={presence}", "progress=false", "panels=1") == 0
    found = [json.loads(path.read_text()) for path in supports.glob("evaluations/*/record.json")]
    assert {r["protocol"]["presence"] for r in found} == {"calibrated", "competing"}
    first = record(runs, "supports")
    assert all(r["annotation_cost"] == first["annotation_cost"] for r in found)  # base classes are labelled anyway
    assert {r["protocol"]["hash"] for r in found} == {first["protocol"]["hash"]}
    capsys.readouterr()
    assert segladder("leaderboard", f"runs={supports}", "format=csv") == 0
    rows = capsys.readouterr().out
    assert all(f"presence={name}" in rows for name in ("always", "calibrated", "competing")) and "repeats" not in rows
    assert segladder("evaluate", f"run={supports}", "presence=maybe") == 2
    assert segladder("evaluate", f"run={runs}/names", "protocol=semantic", "presence=competing") == 2
    assert "protocol.presence" in capsys.readouterr().err


def test_base_classes_that_say_who_is_there_are_paid_for_where_nothing_else_is(root, segladder, tmp_path):
    plain = [word for word in words(root, "supports", tmp_path) if not word.startswith(("backbone.weights", "hydra"))]
    plain += ["protocol.gamma_images=4"]
    assert segladder(*plain, f"hydra.run.dir={tmp_path}/always") == 0
    assert segladder(*plain, "protocol.presence=competing", f"hydra.run.dir={tmp_path}/competing") == 0
    run = tmp_path / "always"
    assert segladder("evaluate", f"run={run}", "presence=competing", "progress=false", "panels=0") == 0
    (path,) = run.glob("evaluations/*/record.json")
    always, competing, again = (record(tmp_path, "always"), record(tmp_path, "competing"), json.loads(path.read_text()))
    costs = [r["annotation_cost"] for r in (always, competing, again)]
    assert costs[0]["seconds"] == costs[0]["novel_seconds"] == costs[1]["novel_seconds"] == costs[2]["novel_seconds"]
    assert (
        costs[1]["seconds"] == pytest.approx(costs[2]["seconds"], abs=0.1) and costs[1]["seconds"] > costs[0]["seconds"]
    )
    assert (
        competing["label_access"]["seen"] == {"cloud": ["masks"], "drum": ["masks"]} != always["label_access"]["seen"]
    )


def test_a_stage_may_score_an_earlier_one_again(root, segladder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chains, "run_child", lambda words: segladder(*words))
    chain = "stages={one:['method=all_foreground'],two:['evaluate=one','shots=2','panels=0','progress=false']}"
    words = ["train", *SMALL, chain, f"data.root={root}", f"runs={tmp_path}"]
    for already in (0, 2):
        assert segladder(*words) == 0
        assert capsys.readouterr().out.count("is there already") == already
    (again,) = tmp_path.glob("one-seed0-*/evaluations/*/record.json")
    assert json.loads(again.read_text())["shots"] == 2
    assert segladder(*words, "stages.two.0='evaluate=seeds'") == 2
    assert "stages.two: evaluate=seeds names no stage before it (one)" in capsys.readouterr().err


def test_training_uses_base_images_and_where_novel_labels_are_given_the_pool(runs, pool):
    images = {name: record(runs, name)["data"]["train_ids"] for name in RUNGS if name != "supports"}
    base, whole = len(pool.base), len(pool.base) + len(pool.images)
    assert images == {"floor": base, "masks": whole, "seeds": whole, "tags": whole, "names": base}


def test_pseudo_masks_show_novel_classes_beside_drawn_base_ones(root, runs, pool):
    (manifest,) = (runs / "seeds" / "pseudo_masks").glob("*/manifest.json")
    assert sorted(json.loads(manifest.read_text())["images"]) == sorted(pool.images)
    for image_id in pool.images:
        made, drawn = (read_mask(folder / f"{image_id}.png") for folder in (manifest.parent, root / "masks"))
        base = np.isin(drawn, (3, 4))
        assert np.array_equal(made[base], drawn[base])
        assert set(np.unique(made[~base])) <= {0, 255, *np.intersect1d(drawn, (1, 2))}


def iou_of(matrix, k):
    return matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k])


def test_the_threshold_of_pseudo_masks_fits_drawn_masks_of_base_classes_best(root, runs, pool):
    (manifest,) = (runs / "seeds" / "pseudo_masks").glob("*/manifest.json")
    settings = json.loads(manifest.read_text())["settings"]
    source, method = Folder(root), trained_method(runs / "seeds")
    shares = {}
    for threshold in THRESHOLDS:
        matrix = np.zeros((5, 5))
        for i in pool.base:
            pixels, tags = torch.from_numpy(source.image(i)).permute(2, 0, 1)[None], torch.from_numpy(source.tags(i))
            with torch.inference_mode():
                given = method.class_scores([], pixels.float(), tags[None], [1.0], False).half().float()
            scores = torch.nn.functional.interpolate(given, (64, 64), mode="bilinear")[0].numpy()
            labels = np.where(scores.max(0) > threshold, scores.argmax(0) + 1, 0)
            mask = source.mask(i)
            np.add.at(matrix, (mask[mask != 255], labels[mask != 255]), 1)
        shares[threshold] = np.mean([iou_of(matrix, k) for k in (0, 3, 4)])
    assert settings["foreground_at"] == settings["background_at"] == max(shares, key=shares.get), shares


def test_what_a_rung_may_not_see_does_not_reach_its_weights(root, runs, pool, segladder, tmp_path):
    """Novel objects move, in the pool and outside; their outlines of 255 too. Images keep their tags."""
    scrambled = tmp_path / "data"
    shutil.copytree(root, scrambled)
    source = Folder(root)
    for image_id in set(source.split("train")) - set(pool.base):
        mask = source.mask(image_id)
        moved = np.where(np.isin(mask, (3, 4)), mask, 0).astype(np.uint8)
        free = np.flatnonzero(moved.reshape(-1) == 0)
        for place, k in enumerate(np.intersect1d(mask, (1, 2))):
            moved.reshape(-1)[free[200 * place : 200 * place + 150]] = k
        save_mask(scrambled / "masks" / f"{image_id}.png", moved)
    again = tmp_path / "runs"
    for name in ("seeds", "tags", "names"):
        assert segladder(*words(scrambled, name, again)) == 0
        first, second = (torch.load(place / name / "weights.pt", weights_only=True) for place in (runs, again))
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_a_run_that_knows_more_of_novel_classes_is_no_start(root, runs, segladder, tmp_path, capsys):
    few = words(root, "supports", tmp_path)
    few[few.index(f"backbone.weights={tmp_path}/floor")] = f"backbone.weights={runs}/masks"
    assert segladder(*few) == 2
    assert "has learnt apple, a novel class of fold=0" in capsys.readouterr().err
    assert segladder(*words(root, "masks", tmp_path), f"backbone.weights={runs}/seeds") == 2
    assert "has learnt novel classes of fold=0 as image_level with pool=8" in capsys.readouterr().err


def test_a_run_that_is_refused_lets_its_parent_compute_nothing(root, runs, segladder, tmp_path, capsys):
    made = sorted((runs / "seeds").glob("pseudo_masks/*"))
    own = [word for word in words(root, "tags", runs) if not word.startswith(("pool=", "hydra.run.dir="))]
    assert segladder(*own, "pool=4", f"hydra.run.dir={tmp_path}") == 2
    assert "as image_level with pool=8, but this run is image_level with pool=4" in capsys.readouterr().err
    assert sorted((runs / "seeds").glob("pseudo_masks/*")) == made


def test_the_leaderboard_says_what_annotation_buys(runs, segladder, capsys, tmp_path):
    out = tmp_path / "board.md"
    assert segladder("leaderboard", f"runs={runs}", f"out={out}") == 0
    text = out.read_text()
    assert "folds missing: seed 0: 1" in text and "What annotation buys, ladder-" in text
    assert "| prototype from floor" not in text and "prototype, 2 masks a class | 10 min |" in text
    assert "| method | backbone | shots | apple | brick |" in text
    assert {path.name.split("-fold")[-1] for path in tmp_path.glob("*.png")} == {"0.png", "0-dark.png"}


def test_novel_pseudo_masks_need_the_ladder(root, runs, segladder, tmp_path, capsys):
    wanted = [word for word in words(root, "tags", tmp_path) if not word.startswith(("parent=", "protocol"))]
    assert segladder(*wanted, "protocol=semantic", f"parent={runs}/seeds") == 2
    assert "pseudo_masks.classes=novel: expected all, or with protocol=ladder novel" in capsys.readouterr().err
    assert segladder(*words(root, "tags", runs)[:-1], f"hydra.run.dir={tmp_path}", "pseudo_masks.classes=all") == 2
    assert "pseudo_masks.background=base: needs drawn masks of base classes" in capsys.readouterr().err


STAGES = composed(["experiment=ladder"]).stages


@pytest.mark.parametrize("stage", [name for name, words in STAGES.items() if not words[0].startswith("evaluate=")])
def test_the_stages_of_the_experiment_are_runs_whose_choices_fit(stage):
    overrides = [o for o in STAGES[stage] if not o.startswith("start=") and (not o.endswith("=floor") or "tag" in o)]
    config = composed(["experiment=ladder", *overrides, "stages=null"])
    check_choices(config)
    assert config.protocol.name == "ladder" and config.protocol.supervision == config.method.supervision
    assert config.pool == {"floor": 0, "ceiling": None, "tuned_10": 10, "cosines": 0, "imprinted_10": 10}.get(
        stage, 100
    )


def test_a_run_of_another_protocol_pays_for_its_novel_labels_on_the_ladder(root, segladder, tmp_path):
    plain = [
        word for word in words(root, "masks", tmp_path) if not word.startswith(("protocol", "pool", "hydra", "tag"))
    ]
    assert segladder(*plain, "protocol.bootstrap=20", f"hydra.run.dir={tmp_path}/full") == 0
    again = (
        "evaluate",
        f"run={tmp_path}/full",
        "protocol=ladder",
        "protocol.gamma_images=4",
        "progress=false",
        "panels=0",
    )
    assert segladder(*again) == 0
    (path,) = tmp_path.glob("full/evaluations/*/record.json")
    before, now = (r["annotation_cost"] for r in (record(tmp_path, "full"), json.loads(path.read_text())))
    assert before["novel_seconds"] == 0 and before["seconds"] == now["seconds"]
    assert 0 < now["novel_seconds"] < now["seconds"] and now["novel_labels"] == ["masks"]


def test_a_rung_is_not_asked_for_a_fold_whose_labels_it_had(runs, segladder, capsys):
    again = ("evaluate", f"run={runs}/masks", "protocol.fold=1", "protocol=ladder", "progress=false", "panels=0")
    assert segladder(*again) == 2
    assert "has labels of cloud in folder" in capsys.readouterr().err


def test_a_rung_of_tags_is_not_asked_for_classes_of_which_it_had_masks(root, segladder, tmp_path, capsys):
    for name in ("seeds", "tags"):
        assert segladder(*words(root, name, tmp_path), "pool=null") == 0
    again = (
        "evaluate",
        f"run={tmp_path}/tags",
        "protocol=ladder",
        "protocol.gamma_images=4",
        "progress=false",
        "panels=0",
    )
    assert segladder(*again) == 0
    assert segladder(*again, "protocol.fold=1") == 2
    assert "has learnt cloud from masks" in capsys.readouterr().err
