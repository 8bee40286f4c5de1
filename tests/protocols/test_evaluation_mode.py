"""Whoever needs a method in evaluation mode for a while gives it back as it was, also when an error comes between."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dummy_data import write_folder
from torch import nn

from segladder.data.sources.folder import Folder
from segladder.data.training.episodes import Episode
from segladder.methods.base import evaluating
from segladder.metrics.scores import Score
from segladder.protocols.base import Scoring
from segladder.protocols.classification import classification_score
from segladder.protocols.episodic import EpisodicProtocol
from segladder.protocols.inference import answered
from segladder.runs.watching.looks import Judge, Looks


class Broken(Exception):
    """What answering may raise."""


class Breaks(nn.Module):
    """A stand-in for any method: it cannot answer, and says in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.head, self.asked_in_training = nn.Dropout(), None
        self.device = torch.device("cpu")

    def answer(self, *question):
        self.asked_in_training = self.training or self.head.training
        raise Broken

    batches = normalize = tag_logits = answer


@pytest.fixture
def source(tmp_path):
    return Folder(write_folder(tmp_path))


def dense(method, source):
    answered(Scoring(method, source), source.split("train"), method.answer, lambda *counted: None, "")


def tags(method, source):
    classification_score(Scoring(method, source, source.split("train")))


def episodes(method, source):
    runner = SimpleNamespace(method=method, source=source, batches=method.batches)
    EpisodicProtocol.tally(SimpleNamespace(), runner, [Episode("query", 1, ("support",), 0)])


def selection(method, source):
    shown = source.classes, source.colours
    judge = Judge("held_out", Score("any"), lambda module: module.answer(), lambda module: iter(()), *shown)
    Looks(source.root, judge, 1, False, False, SimpleNamespace(interrupted=False)).look(None, method)


@pytest.mark.parametrize("ask", [dense, tags, episodes, selection])
@pytest.mark.parametrize("training", [True, False])
def test_an_error_inside_leaves_the_mode_as_it_was(source, ask, training):
    method = Breaks().train(training)
    with pytest.raises(Broken):
        ask(method, source)
    assert method.asked_in_training is False
    assert method.training is method.head.training is training


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_when_all_went_well(training):
    method = nn.Sequential(nn.Dropout()).train(training)
    with evaluating(method):
        assert not method.training and not method[0].training
        assert np.array_equal(method(torch.ones(9)), np.ones(9))
    assert method.training is method[0].training is training
