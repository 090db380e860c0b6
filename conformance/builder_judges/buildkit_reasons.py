"""Integration tests of BuildKit that say nothing of this builder, by file and by name, with the reason."""

LEFT_OUT = {
    "dockerfile_check_test.go": "judged by the corpus `buildkit lint`",
    "dockerfile_provenance_test.go": "provenance is not built yet",
    "dockerfile_sbom_test.go": "bills of materials are not built yet",
}

_BY_REASON = {
    "caches are not imported and exported yet": """
        testExportCacheLoop testCacheMultiPlatformImportExport testImageManifestCacheImportExport testCacheImportExport
        testImportExportReproducibleIDs testReproSourceDateEpoch""",
    "asks BuildKit's daemon for its own bookkeeping": """
        testCacheReleased testNoSnapshotLeak testHistoryError testHistoryFinalizeTrace testGitQueryString
        testWorkdirSourceDateEpochReproducible testLocalCustomSessionID testSourcePolicyWithNamedContext
        testRunSecurityDefault""",
    "is about frontends that are programs of their own, in Go": """
        testGatewayBuiltinSyntaxSourceDockerfileV0 testFrontendUseForwardedSolveResults testFrontendEvaluate
        testFrontendInputs testFrontendSubrequests testNilContextInSolveGateway testMultiNilRefsInSolveGateway
        testNamedInputContext testNamedMultiplatformInputContext testOutlineDescribeDefinition
        testTargetsDescribeDefinition testPullScratch""",
    "builds for other platforms than this machine's": """
        testDefaultShellAndPath testTarExporterMulti testExportMultiPlatform testMultiNilRefsOCIExporter
        testNamedImageContextPlatform testPlatformArgsExplicit testPlatformWithOSVersion testMaintainBaseOSVersion
        testDefaultPathEnvOnWindows""",
    "installs packages of a distribution that cannot be reached": """
        testAddGitSHA1 testAddGitSHA256 testAddGit testSSHFileDescriptorsClosed""",
    "reads the stream of BuildKit's progress": """
        testStepNames testSecretAsEnviron testNamedFilteredContext testDockerignoreInvalid""",
    "`kestrel build` has no such option": """
        testNoCache testDockerfileCheckHostname testShmSize testUlimit testTarContextExternalDockerfile
        testSourceDateEpochWithoutExporter testSourceDateEpochDockerfileDefaultReset testDeviceRunEnv
        testCgroupParent testLinuxResources""",
}
REASONS = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}

DIFFERENT = {
    "testDockerfileADDFromURL": "a file of ADD has the clamped time, not its server's",
    "testCopySocket": "a socket is left out: tar has no kind for it",
    "testExportedHistory": "a RUN that changes nothing leaves no layer",
    "testNamedImageContextTimestamps": "an image built twice has one time: that is what it is clamped to",
    "testSourceDateEpochContextLocalUnset": "times are clamped without being asked for",
    "testSourceDateEpochStageHTTPArchive": "SOURCE_DATE_EPOCH cannot name a stage",
    "testErrorsSourceMap": "`# syntax=` is no error: the frontend it names is not run",
}
"""Tests that fail because Kestrel means something else, and says so."""
