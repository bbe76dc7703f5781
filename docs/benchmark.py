"""Write docs/benchmark.md from the finished folder of the benchmark that it describes.

``HE2ST_DATA=… python docs/benchmark.py FOLDER`` reads what is there, trains what is missing (nothing, once the command
on the page has been run), and writes the page and its figure.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

from napari_he2st.cli.inputs import open_section
from napari_he2st.engine.benchmark import Contestant, benchmark
from napari_he2st.engine.benchmark_figures import critical_differences
from napari_he2st.engine.benchmark_report import differences, markdown, per_gene_scores, summarise
from napari_he2st.zoo.catalogue import card_of

HERE = Path(__file__).parent
SETTINGS = HERE.parent / "benchmarks" / "families.toml"
SECTIONS = ("C2", "C3", "C4", "C5", "B4")
PAGE = """\
# Which predictor to trust: an example

{n} systems of {families} families ({named}) with their baselines, on five sections of two HER2-positive breast
tumours ([her2st](https://github.com/almaan/her2st)): patient C (C2 to C5) and patient B (B4). Each patient is left out
in turn; what is scored was never seen. The panel, the 250 genes most variable, is chosen within the training sections
of each fold. All systems are small variants trained briefly on one CPU core (`benchmarks/families.toml`), so this is
**not a ranking of the publications**: it shows what the command says on few sections. Research use only.

```bash
he2st benchmark --systems {systems} \\
    --data her2st:C2 her2st:C3 her2st:C4 her2st:C5 her2st:B4 \\
    --folds patient --panel hvg:250 --settings benchmarks/families.toml -o trust
```

**Read the order with care.** The first six predict in units that keep sequencing depth (log1p of counts, log2p,
minmax_log10): there all genes rise and fall together with the depth of a spot, and a predictor that sees thin tissue
at the edge correlates with every one of them. The others predict the share of a gene in its spot, which is harder.

{table}
![Mean rank of each system over the genes](images/benchmark-ranks.png)

Mean ranks over the genes; bars join systems that do not differ. *pcc_gene* is Pearson's correlation over the spots of a
gene, *pcc_spot* over the genes of a spot: the training mean alone scores high in the second. *mse_ratio* is the error
over that of the training mean; *ari* and *nmi* compare five domains found in the prediction with five found in the
measurement. ± is the standard deviation over folds, and for *pcc_gene* also over genes. {howto}
"""


def main() -> None:
    """Read the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    data = Path(os.environ["HE2ST_DATA"]) / "her2st"
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    contestants = [Contestant.parse(name, given) for name, given in settings.items()]
    result = benchmark(contestants, [open_section(f"{data}:{name}") for name in SECTIONS], folder, device="cpu")
    families = dict.fromkeys(card_of(name).tasks[0] for name in settings)
    table = summarise(result)
    scores = per_gene_scores(result)[list(table.index)]
    critical_differences(scores, differences(result)).savefig(HERE / "images" / "benchmark-ranks.png", dpi=90)
    page = PAGE.format(
        n=len(settings),
        families=len(families),
        named=", ".join(families),
        systems=" ".join(settings),
        table=markdown(result),
        howto="See [how to find out which predictor to trust](howto/benchmark.md).",
    )
    (HERE / "benchmark.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
