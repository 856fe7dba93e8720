"""What the report needs of the fusion measures."""

from headwise.evaluation.protocols.description import Description

FUSION = Description(
    title="Fusion",
    definition=(
        "Whether the attention of the head brings images of one class together. The gain says how "
        "many times more attention stays within a class than chance would give; 1 means no effect."
    ),
    labels={
        "fusion_gain": "fusion gain",
        "fusion_gain_untrained": "gain, highest of the untrained heads",
        "fusion_gain_h": "gain, h at equal entropy",
        "fusion_gain_input": "gain, input rows at equal entropy",
        "fusion_twin_mass": "attention to the twin",
        "fusion_self_mass": "attention to itself",
        "fusion_other_mass": "attention to other images",
        "fusion_auroc": "same class, AUROC",
        "fusion_nmi": "clusters of attention, NMI",
        "fusion_nn1": "1-NN within the batch",
        "fusion_slope": "slope of the excess over h along the blocks",
    },
    section="fusion",
    source="arXiv 2403.18681",
)
