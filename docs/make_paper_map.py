"""Write docs/paper-map.md: every equation, table and figure of the five papers -> file:line,
command, or why not built.

    python docs/make_paper_map.py          write the page
    python docs/make_paper_map.py --check  exit with status 1 if the page would change

An entry names code as "file.py:name" below src/marey (methods as Class.name). The line is read from
the source. A definition that moved is found where its name is unique; an entry whose code is
gone is an error. "$ ..." is a command;
"not built: ..." says why.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "marey"
PAGE = ROOT / "docs" / "paper-map.md"

STUDY = "Kaur, Action Recognition Using Vision Transformers (the HMDB_simp study)"
DIRECFORMER = "Truong et al., DirecFormer, CVPR 2022"
SEVITAR = "SeViTAR, a semantic video transformer (ROSE challenge)"
GAT = "Sahu et al., GAT: gated adversarial transformer"
ACTION = "Girdhar et al., Video Action Transformer, CVPR 2019"

Entry = tuple[str, str, tuple[str, ...]]
ENTRIES: dict[str, list[Entry]] = {
    STUDY: [
        ("Section 3", "sampling at 1/32, equidistant, random", ("video/sampling.py:ClipSampling",)),
        ("Section 3", "extension of short videos", ("video/extension.py:extend_frames",)),
        (
            "Section 3",
            "split 900/225/125, best epoch on the validation videos",
            ("datasets/hmdb_simp.py:read", "papers/hmdb_study.py:run_line"),
        ),
        ("Section 3", "fine-tuning settings", ("recipes/hmdb_study.py:timesformer_hmdb_simp",)),
        (
            "Table 1",
            "batch size, optimiser, learning rate",
            ("$ marey reproduce hmdb-study --data DATA --cells 'Table 1*' --out DIR",),
        ),
        (
            "Table 2",
            "pre-training",
            ("$ marey reproduce hmdb-study --data DATA --cells 'Table 2*' --out DIR",),
        ),
        (
            "Table 3",
            "samplers",
            ("$ marey reproduce hmdb-study --data DATA --cells 'Table 3*' --out DIR",),
        ),
        (
            "Table 4",
            "TimeSformer and ViViT",
            (
                "$ marey reproduce hmdb-study --data DATA --cells 'Table 4*' --out DIR",
                "recipes/hmdb_study.py:vivit_hmdb_simp",
            ),
        ),
        (
            "Table 5",
            "extension before and after sampling",
            ("$ marey reproduce hmdb-study --data DATA --cells 'Table 5*' --out DIR",),
        ),
        ("Figs. 1, 2", "drawings of ViT and ViViT", ("not built: drawings of architectures",)),
        (
            "Fig. 3",
            "confusion matrix",
            (
                "$ marey evaluate RUN --data DATA --out DIR",
                "papers/hmdb_page.py:confusion_table",
            ),
        ),
        (
            "Fig. 4",
            "web page; the study's takes Kinetics-400 weights where the fine-tuned ones fail to "
            'load, ours stops with the error, and answers "unknown" to videos of other actions',
            ("$ marey serve", "web/verdict.py:verdict"),
        ),
        (
            "Fig. 5",
            "attention map",
            (
                "$ marey explain VIDEO --out DIR",
                "explain/attention.py:attention_map",
                "papers/hmdb_page.py:map_figure",
            ),
        ),
        (
            "Figs. 6, 7",
            "right and wrong videos with top-5",
            ("$ marey reproduce hmdb-study --data DATA --out DIR", "papers/hmdb_page.py:figure"),
        ),
    ],
    DIRECFORMER: [
        ("Eq. 1", "likelihood of class and order", ("training/tasks/clips.py:ClipsObjective",)),
        (
            "Eq. 2",
            "class of the ordered, order of the permuted clip",
            ("training/terms/order.py:PermutedClips.training_batch",),
        ),
        ("Eq. 3", "patch and space-time embedding", ("models/timesformer.py:TimeSformer.embed",)),
        (
            "Eqs. 4, 8",
            "query, key, value of normed tokens",
            ("layers/transformer_block.py:DividedBlock.forward",),
        ),
        (
            "Eq. 5",
            "directed attention over all tokens",
            (
                "layers/directed_attention.py:directed_weights",
                "layers/transformer_block.py:JointBlock",
            ),
        ),
        (
            "Eqs. 6, 7",
            "directed attention over time",
            ("layers/attention.py:SoftmaxAttention.over_time",),
        ),
        (
            "Eqs. 9, 10",
            "directed attention over space",
            ("layers/attention.py:SoftmaxAttention.over_space",),
        ),
        ("Eq. 11", "MLP with residual", ("layers/transformer_block.py:MLP",)),
        ("Eq. 12", "class and order heads", ("models/direcformer.py:DirecFormer.forward_head",)),
        ("Eq. 13", "guided loss", ("losses/order.py:guided_loss", "losses/order.py:order_signs")),
        ("Eq. 14", "total loss", ("training/task.py:Objective.total",)),
        ("Eq. 15", "OrderAcc", ("metrics/order.py:order_accuracy",)),
        (
            "Section 1",
            "are shuffled clips classified alike, and corrected ones again?",
            (
                "$ marey reliance MODEL --data DATA",
                "evaluation/order.py:measure_reliance",
                "papers/direcformer_poses.py:measure",
            ),
        ),
        ("Section 4.1", "permutation set", ("order/permutations.py:make_permutation_set",)),
        ("Section 4", "Hamiltonian path", ("order/path.py:hamiltonian_path",)),
        (
            "Tables 1, 2",
            "ablation and order correction on Jester",
            (
                "$ marey reproduce direcformer --data WINDOWS --out DIR",
                "recipes/direcformer.py:direcformer_jester",
            ),
        ),
        (
            "Table 3",
            "Something-Something V2",
            (
                "$ marey reproduce direcformer --scale full --data DATA --out DIR",
                "recipes/direcformer.py:direcformer_something_v2",
            ),
        ),
        (
            "Table 4",
            "Kinetics-400",
            (
                "$ marey reproduce direcformer --scale full --data DATA --out DIR",
                "recipes/direcformer.py:direcformer_kinetics400",
            ),
        ),
        (
            "Table 5, Fig. 1",
            "size and cost",
            (
                "$ marey reproduce direcformer --cells 'size*' --out DIR",
                "papers/figures.py:draw_cost",
            ),
        ),
        ("Fig. 2", "framework", ("models/direcformer.py:DirecFormer",)),
        ("Fig. 3", "samples of the data sets", ("not built: pictures of data that is not ours",)),
        (
            "Fig. 4",
            "order correction on the directed matrix",
            (
                "$ marey order VIDEO --shuffle 0 --out DIR",
                "explain/order_figures.py:draw_order",
            ),
        ),
    ],
    SEVITAR: [
        (
            "Eq. 1",
            "patch embedding with one vector per place and time",
            ("models/timesformer.py:TimeSformer.embed",),
        ),
        (
            "Section 3.1",
            "divided space-time attention",
            ("layers/transformer_block.py:DividedBlock",),
        ),
        (
            "Section 3.2",
            "semantic MLP and its loss",
            (
                "models/sevitar.py:SeViTAR.forward_head",
                "losses/label_embedding.py:label_embedding_loss",
            ),
        ),
        ("Section 3.3", "classification of [s, z]", ("models/sevitar.py:SeViTAR.forward_head",)),
        (
            "Section 3",
            "seen and unseen classes",
            (
                "inference/zero_shot.py:rank_labels",
                "$ marey predict VIDEO --labels 'riding a bike,juggling'",
                "$ marey reproduce sevitar-unseen --data VIDEOS --out DIR",
            ),
        ),
        (
            "Section 4.2",
            "contribution of the semantic embedding",
            (
                "$ marey reproduce sevitar-decided --data VIDEOS --out DIR",
                "papers/sevitar_heads.py:apply_heads",
            ),
        ),
        (
            "Table 1",
            "perturbed UCF101, HMDB51, Kinetics-400",
            (
                "$ marey reproduce sevitar --scale full --data DATA --out DIR",
                "recipes/sevitar.py:sevitar_ucf101",
            ),
        ),
        (
            "Table 2",
            "mini versions",
            ("$ marey reproduce sevitar --scale full --data DATA --out DIR",),
        ),
        ("Fig. 1", "t-SNE of features", ("$ marey reproduce sevitar-decided --out DIR",)),
        ("Fig. 2", "architecture", ("models/sevitar.py:SeViTAR",)),
        (
            "Fig. 3",
            "perturbations",
            ("corruptions/__init__.py:corrupt", "$ marey corrupt DATA --out DIR-P"),
        ),
    ],
    GAT: [
        ("Eq. 1", "scaled dot-product attention", ("layers/gated_attention.py:attend",)),
        (
            "Section 3.1",
            "global and local attention, gates",
            ("layers/gated_attention.py:GatedMultiLevelAttention",),
        ),
        ("Eq. 2", "cross-entropy", ("losses/multilabel.py:multilabel_loss",)),
        (
            "Eq. 3",
            "adversarial perturbation",
            ("losses/adversarial.py:perturbation_from_gradient",),
        ),
        (
            "Section 3.2.1",
            "L_advFr, L_advJS",
            (
                "losses/attention_regularisation.py:frobenius_distance",
                "losses/attention_regularisation.py:jensen_shannon_distance",
            ),
        ),
        ("Algorithm 1", "training", ("training/terms/adversarial.py:AdversarialTraining",)),
        (
            "Section 3.2.1",
            "local maps regularised too",
            (
                "training/objective_config.py:AdversarialConfig",
                "$ marey reproduce gat --cells 'GAT-AdvFr, local maps too' --out DIR",
            ),
        ),
        (
            "Section 4.1",
            "64,000 videos of the validate partition choose, the rest is the test set",
            ("papers/gat_study.py:Study.videos", "recipes/gat.py:gat_youtube8m"),
        ),
        (
            "Section 4.2",
            "five equal parts of the test set",
            ("metrics/youtube8m.py:YouTube8MEvaluator.partitions",),
        ),
        (
            "Table 1",
            "ablation",
            (
                "$ marey reproduce gat --out DIR",
                "papers/gat.py:measure",
                "metrics/youtube8m.py:paired_gap_difference",
            ),
        ),
        (
            "Table 2",
            "listing",
            ("papers/gat_figures.py:listing", "$ marey reproduce gat --cells listing --out DIR"),
        ),
        (
            "Figs. 1a, 4",
            "attention profiles",
            (
                "layers/gated_attention.py:global_profile",
                "layers/gated_attention.py:local_profile",
                "papers/gat_figures.py:profiles",
                "$ marey reproduce gat --cells profiles --out DIR",
            ),
        ),
        (
            "Figs. 1b, 6",
            "attention under attack",
            (
                "papers/gat_figures.py:attention_under_attack",
                "$ marey reproduce gat --cells 'attention under attack' --out DIR",
            ),
        ),
        ("Fig. 2", "architecture", ("models/gat.py:GAT",)),
        (
            "Fig. 3",
            "windows and experts",
            (
                "papers/gat.py:measure_on_validation",
                "$ marey reproduce gat --cells 'SA-CE,GMSA-CE,S (*,T[0-9]*' --out DIR",
            ),
        ),
        (
            "Fig. 5",
            "epsilon and alpha",
            (
                "papers/gat.py:measure_on_validation",
                "$ marey reproduce gat --cells 'GMSA-*,eps *,alpha *' --out DIR",
            ),
        ),
        (
            "Fig. 7",
            "under attack",
            (
                "training/terms/adversarial.py:perturb",
                "papers/gat_study.py:measure_under_attack",
                "$ marey reproduce gat --cells '*, attacked' --out DIR",
            ),
        ),
        (
            "Section 4.3.2",
            "maps move by 1.23, regularised by 0.02",
            (
                "losses/attention_regularisation.py:attention_regularisation",
                "$ marey reproduce gat --cells '*, attacked' --out DIR",
            ),
        ),
        (
            "Fig. 8",
            "best and worst classes",
            (
                "metrics/youtube8m.py:best_and_worst_classes",
                "$ marey reproduce gat --cells classes --out DIR",
            ),
        ),
        ("Section 5", "hierarchy of windows", ("layers/gated_attention.py:window_hierarchy",)),
    ],
    ACTION: [
        ("Section 3.1", "I3D trunk", ("models/i3d.py:I3DTrunk",)),
        (
            "Section 3.1",
            "region proposals",
            ("models/action_transformer.py:ActionTransformer.propose",),
        ),
        ("Section 3.2", "attention and its residual branch", ("layers/tx.py:TxUnit.forward",)),
        ("Section 3.2", "location embedding", ("layers/location_embedding.py:LocationEmbedding",)),
        ("Section 3.2", "query preprocessing", ("layers/tx.py:QueryPreprocessor",)),
        ("Section 3.3", "I3D head", ("models/action_transformer.py:I3DHead",)),
        ("Section 3.4", "losses", ("losses/detection.py:detection_loss",)),
        (
            "Section 3.5",
            "training settings",
            ("recipes/action_transformer.py:action_transformer_ava",),
        ),
        (
            "Table 1",
            "with ground-truth boxes",
            (
                "$ marey reproduce action-transformer --out DIR",
                "models/action_transformer.py:count_parameters",
            ),
        ),
        (
            "Table 2",
            "localisation",
            ("$ marey reproduce action-transformer --out DIR", "metrics/ava.py:evaluate_csv"),
        ),
        ("Table 3", "overall", ("$ marey reproduce action-transformer --out DIR",)),
        ("Table 4", "Tx, Tx+I3D, 96 frames", ("$ marey reproduce action-transformer --out DIR",)),
        (
            "Table 5",
            "augmentation, pre-training, class-agnostic boxes",
            ("$ marey reproduce action-transformer --out DIR",),
        ),
        ("Figs. 1-3", "architecture", ("models/action_transformer.py:ActionTransformer",)),
        (
            "Fig. 4",
            "key embeddings and attention",
            (
                "$ marey reproduce action-transformer --cells 'Fig. 4' --out DIR",
                "layers/tx.py:TxHead.key_embeddings",
            ),
        ),
        (
            "Fig. 5",
            "by class, size and number of persons",
            (
                "$ marey reproduce action-transformer --cells 'Fig. 5' --out DIR",
                "metrics/ava_breakdown.py:breakdown",
            ),
        ),
        (
            "Figs. 6, 7",
            "top predictions and failures",
            (
                "$ marey reproduce action-transformer --cells 'Fig. 6,Fig. 7' --out DIR",
                "explain/persons.py:gallery",
            ),
        ),
        (
            "Sections 1, 5",
            "tracking, hands and faces",
            (
                "$ marey reproduce action-transformer --cells 'Attention and keys' --out DIR",
                "papers/action_transformer_figures.py:observations",
            ),
        ),
    ],
}


def node_of(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    """Return the definition "Class.method" or "function" of a file, None if it is not there."""
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    found: ast.ClassDef | ast.FunctionDef | None = None
    for part in name.split("."):
        found = None
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part:
                found = node
        if found is None:
            return None
        body = found.body
    return found


def find(place: str) -> tuple[Path, ast.ClassDef | ast.FunctionDef]:
    """Return the file and the definition a "file.py:Class.method" names.

    If the definition has moved and one other file of the package defines that name, that file is
    returned.

    Raises:
        LookupError: if no file, or more than one, defines the name.
    """
    file, _, name = place.partition(":")
    path = PACKAGE / file
    if path.is_file() and (node := node_of(path, name)):
        return path, node

    found = [
        (other, node) for other in sorted(PACKAGE.rglob("*.py")) if (node := node_of(other, name))
    ]
    if len(found) != 1:
        others = ", ".join(str(other.relative_to(PACKAGE)) for other, _ in found)
        raise LookupError(
            f"{place}: not there; the name is defined in {others or 'no file'} of src/marey"
        )
    return found[0]


def render() -> str:
    """Return the page."""
    lines = [
        "# Paper map",
        "",
        "Every equation, table and figure of the five papers, and where it is. Written by",
        "`python docs/make_paper_map.py`; a test holds it against the code.",
        "",
    ]
    for paper, entries in ENTRIES.items():
        lines += [f"## {paper}", "", "| item | what | where |", "|---|---|---|"]
        for item, what, places in entries:
            lines.append(f"| {item} | {what} | {'<br>'.join(_show(place) for place in places)} |")
        lines.append("")
    return "\n".join(lines)


def _show(place: str) -> str:
    if place.startswith("$ "):
        return f"`{place[2:]}`".replace("|", "\\|")
    if place.startswith("not built: "):
        return place
    path, node = find(place)
    file = path.relative_to(PACKAGE)
    return (
        f"[`{file}:{node.lineno}`](../src/marey/{file}#L{node.lineno}) `{place.partition(':')[2]}`"
    )


def main() -> int:
    """Write or check the page."""
    page = render()
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
