from kestrel.linux import capabilities


def test_names_have_the_kernel_s_numbers() -> None:
    bits = capabilities.BITS
    assert (bits["CAP_CHOWN"], bits["CAP_SYS_ADMIN"], bits["CAP_CHECKPOINT_RESTORE"]) == (1, 1 << 21, 1 << 40)
    assert len(bits) == 41


def test_names_are_taken_in_any_spelling_and_unknown_ones_told() -> None:
    assert capabilities.mask(["net_raw", "CAP_CHOWN", "cap_weird"]) == (1 << 13 | 1, ["cap_weird"])


def test_a_mask_names_what_is_in_it() -> None:
    assert capabilities.names(1 << 21 | 1) == ["CAP_CHOWN", "CAP_SYS_ADMIN"]
