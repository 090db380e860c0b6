"""Why a check fails that we do not mean to pass, or cannot on this machine: by program, and words of the check."""

_LSM = "the security module it asks for is not in force in this kernel; being refused is what the profile is for"

REASONS = (
    ("delete", "", "deleting a `created` container is to fail; podman and containerd do it, so runc and we let them"),
    ("start", "", "a container without `process` is refused at `create` already, as by runc, not at `start`"),
    ("hooks_stdin", "prestart", ("it wants the state `created`; since runtime-spec 1.0.2 prestart belongs to `create`, "
     "so the state is `creating`")),
    ("linux_cgroups_blkio", "", "this kernel's block layer has no weights (blkio.weight is absent)"),
    ("linux_cgroups_relative_blkio", "", "this kernel's block layer has no weights (blkio.weight is absent)"),
    ("linux_cgroups_hugetlb", "", "the hugetlb controller is not mounted here"),
    ("linux_cgroups_relative_hugetlb", "", "the hugetlb controller is not mounted here"),
    ("linux_cgroups_network", "", "the net_cls and net_prio controllers are not in this kernel"),
    ("linux_cgroups_relative_network", "", "the net_cls and net_prio controllers are not in this kernel"),
    ("linux_cgroups_memory", "kernel", "Linux no longer limits kernel memory alone; the limit is left out, as by runc"),
    ("linux_cgroups_relative_memory", "kernel", "Linux no longer limits kernel memory alone, as above"),
    ("linux_mount_label", "", _LSM),
    ("linux_process_apparmor_profile", "", _LSM),
    ("misc_props", "", "the program forgets to copy `runtimetest` into the bundle that it then runs"),
    ("pidfile", "", "it kills a container of `true`, which has ended, and wants that to work"),
    ("process_capabilities", "CAP_SYS_RESOURCE", ("this machine does not have CAP_SYS_RESOURCE to give (runc gives up "
     "before the program begins)")),
    ("process_capabilities_fail", "", ("it wants an unknown capability to be an error; the specification made it a "
     "warning, so that images may name capabilities of newer kernels")),
    ("process_rlimits", "", "the Go program that looks raises its own soft limit of open files when it starts"),
)  # fmt: skip


def reason(program: str, check: str) -> str:
    """Return why a check fails, or that nobody has found out."""
    for name, words, text in REASONS:
        if name == program and words in check:
            return text
    return "not explained yet"
