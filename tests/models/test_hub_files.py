"""Hub names: an adapter, a reward adapter and a reward model of ours are read by name as from their folders; the Hub is a cache without a network."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from finegrain import reward_function
from finegrain.errors import ModelError, UsageError
from finegrain.models.fingerprint import model_fingerprint
from finegrain.models.hub_files import check_folder, is_hub_name
from finegrain.models.load import load_own_tokenizer, load_policy
from finegrain.models.reward_head import linear_head
from finegrain.models.reward_models import SEQUENCE, TOKEN, is_reward_model, load_reward_model, save_reward_model
from tests.models.test_adapters import adapter, logits
from tests.tiny import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


def publish(hub: Path, folder: Path, name: str) -> str:
    """As a download of `owner/name` lies there."""
    place = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "0123abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abc")
    shutil.rmtree(folder)
    return name


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "here").mkdir(parents=True)
    assert is_hub_name("owner/name")
    assert not any(map(is_hub_name, ("owner/here", "name", "a/b/c", "/name", "./name", "~/name", "")))


def test_an_adapter(hub: Path, base: Path, tmp_path: Path) -> None:
    expected = adapter(base, tmp_path / "adapter")
    policy = load_policy(publish(hub, tmp_path / "adapter", "owner/adapter"))
    assert (logits(policy.model) - logits(expected)).abs().max() < 1e-6
    assert policy.source == "owner/adapter"
    assert len(model_fingerprint(policy, tmp_path)) == 64
    with pytest.raises(ModelError, match="adapter of a CAUSAL_LM model"):
        load_reward_model("owner/adapter")


def test_an_adapter_of_an_adapter(hub: Path, base: Path, tmp_path: Path) -> None:
    below = adapter(base, tmp_path / "below")
    publish(hub, tmp_path / "below", "owner/below")
    upper = peft.get_peft_model(
        below.merge_and_unload(), peft.LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    )
    upper.peft_config["default"].base_model_name_or_path = "owner/below"
    upper.save_pretrained(tmp_path / "upper")
    policy = load_policy(publish(hub, tmp_path / "upper", "owner/upper"))
    assert (logits(policy.model) - logits(upper)).abs().max() < 1e-5


def test_a_reward_adapter(hub: Path, base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS", init_lora_weights=False)
    expected = adapter(base, tmp_path / "reward", config, auto=AutoModelForSequenceClassification)
    name = publish(hub, tmp_path / "reward", "owner/reward")
    assert is_reward_model(name)
    with pytest.raises(ModelError, match="adapter of a reward model"):
        load_policy(name)
    model = load_reward_model(name)
    with torch.no_grad():
        states = model.policy.model.base_model(input_ids=torch.tensor([[5, 9, 33, 70, 12, 44, 2]])).last_hidden_state[:, -1]
        assert abs(float(model.head(states)) - float(logits(expected))) < 1e-6


def test_a_reward_model_of_ours_keeps_what_lies_beside_the_stock_files(hub: Path, tmp_path: Path) -> None:
    start = load_policy(save_tiny(tmp_path / "start"))
    head = linear_head(start.model.config.hidden_size, 2, seed=0)
    facts = {"head": {"method": "gaussian"}}
    save_reward_model(start, head, head.weight[:1], SEQUENCE, facts, tmp_path / "reward", max_length=64)
    here = reward_function(str(tmp_path / "reward"))(["What?"], ["That."])
    name = publish(hub, tmp_path / "reward", "owner/ours")
    model = load_reward_model(name)
    assert model.facts["head"] == facts["head"]
    assert torch.equal(model.head.weight, head.weight)
    assert reward_function(name)(["What?"], ["That."]) == here


def test_a_reward_model_of_ours_without_its_own_files_is_refused(hub: Path, tmp_path: Path) -> None:
    """As a cache holds it that another program filled: stock files alone, whose label is not the score."""
    start = load_policy(save_tiny(tmp_path / "start"))
    head = linear_head(start.model.config.hidden_size, 1, seed=0)
    save_reward_model(start, head, head.weight, TOKEN, {"head": {"method": "token"}}, tmp_path / "reward", max_length=64)
    (tmp_path / "reward" / "reward_head.json").unlink()
    with pytest.raises(ModelError, match=r"lacks reward_head.json .* the whole folder"):
        load_reward_model(tmp_path / "reward")
    with pytest.raises(ModelError, match=r"lacks reward_head.json"):
        load_reward_model(publish(hub, tmp_path / "reward", "owner/part"))


def test_what_is_written_beside_a_checkpoint_needs_a_folder(hub: Path) -> None:
    check_folder("here/not/a/name")
    with pytest.raises(UsageError, match="owner/name is not a local folder"):
        check_folder("owner/name")


def test_an_adapter_without_a_tokenizer_has_its_bases(hub: Path, base: Path, tmp_path: Path) -> None:
    adapter(base, tmp_path / "adapter")
    assert load_own_tokenizer(publish(hub, tmp_path / "adapter", "owner/bare")).get_vocab() == load_own_tokenizer(str(base)).get_vocab()


def test_what_the_hub_does_not_have_is_one_line(hub: Path) -> None:
    assert not is_reward_model("owner/none")
    for load in (load_policy, load_reward_model):
        with pytest.raises(ModelError, match="owner/none"):
            load("owner/none")
