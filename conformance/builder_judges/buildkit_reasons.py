"""Integration tests of BuildKit that say nothing of this builder, by file and by name, with the reason."""

from builder_judges.report import Skip

LEFT_OUT = {
    "dockerfile_check_test.go": (Skip.ELSEWHERE, "judged by the corpus `buildkit lint`"),
    "dockerfile_provenance_test.go": (Skip.LATER, "provenance is not built yet"),
    "dockerfile_sbom_test.go": (Skip.LATER, "bills of materials are not built yet"),
}

_BY_REASON = {
    Skip.LACKING: {
        "RUN --device, with the devices that CDI files describe": "testDeviceRunEnv",
        "a directory inside of an archive as the context, which only BuildKit's own client can ask for": """
            testTarContextExternalDockerfile""",
    },
    Skip.LATER: {
        "caches are not imported and exported yet": """
            testExportCacheLoop testCacheMultiPlatformImportExport testImageManifestCacheImportExport
            testCacheImportExport testImportExportReproducibleIDs testReproSourceDateEpoch""",
        "builds for other platforms than this machine's": """
            testDefaultShellAndPath testTarExporterMulti testExportMultiPlatform testMultiNilRefsOCIExporter
            testNamedImageContextPlatform testPlatformArgsExplicit testPlatformWithOSVersion
            testMaintainBaseOSVersion""",
    },
    Skip.ELSEWHERE: {
        "talks with BuildKit's daemon of its records, sessions and policies": """
            testCacheReleased testHistoryError testHistoryFinalizeTrace testLocalCustomSessionID
            testSourcePolicyWithNamedContext""",
        "is about frontends that are programs of their own, in Go": """
            testGatewayBuiltinSyntaxSourceDockerfileV0 testFrontendUseForwardedSolveResults testFrontendEvaluate
            testFrontendInputs testFrontendSubrequests testNilContextInSolveGateway testMultiNilRefsInSolveGateway
            testNamedInputContext testNamedMultiplatformInputContext testOutlineDescribeDefinition
            testTargetsDescribeDefinition testPullScratch""",
        "installs packages of a distribution that cannot be reached": """
            testAddGitSHA1 testAddGitSHA256 testAddGit testSSHFileDescriptorsClosed""",
        "Windows only": "testDefaultPathEnvOnWindows",
        "reads the stream of BuildKit's progress": "testStepNames testSecretAsEnviron testNamedFilteredContext",
    },
}
REASONS = {
    name: (kind, reason)
    for kind, reasons in _BY_REASON.items()
    for reason, names in reasons.items()
    for name in names.split()
}

DIFFERENT = {
    "testDockerfileADDFromURL": "a file of ADD from a URL has the clamped time, not its server's",
    "testCopySocket": "a socket in the context is left out, as by buildah: tar has no kind for it",
    "testExportedHistory": "a RUN that changes nothing leaves no layer",
    "testNamedImageContextTimestamps": "an image built twice has one time: that is what it is clamped to",
    "testSourceDateEpochContextLocalUnset": "times are clamped also where nobody asks",
    "testSourceDateEpochDockerfileDefaultReset": "times are clamped also where an output is told not to",
    "testSourceDateEpochStageHTTPArchive": "SOURCE_DATE_EPOCH can name a context, not a stage",
    "testErrorsSourceMap": "`# syntax=` is no error: the frontend it names is not run",
}
"""Tests that fail because Kestrel means something else, and says so."""
