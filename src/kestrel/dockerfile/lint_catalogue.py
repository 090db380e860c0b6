"""Names, sentences and pages of the language's rules, as `docker build --check` prints them.

They are an interface: people skip rules by these names, and tools match the sentences.
"""

from kestrel.dockerfile.lint import Rule

STAGE_NAME_CASING = Rule(
    name="StageNameCasing", page="stage-name-casing", description="Stage names should be lowercase"
)
FROM_AS_CASING = Rule(
    name="FromAsCasing",
    page="from-as-casing",
    description="The 'as' keyword should match the case of the 'from' keyword",
)
NO_EMPTY_CONTINUATION = Rule(
    name="NoEmptyContinuation",
    page="no-empty-continuation",
    description="Empty continuation lines will become errors in a future release",
)
CONSISTENT_CASING = Rule(
    name="ConsistentInstructionCasing",
    page="consistent-instruction-casing",
    description="All commands within the Dockerfile should use the same casing (either upper or lower)",
)
DUPLICATE_STAGE_NAME = Rule(
    name="DuplicateStageName", page="duplicate-stage-name", description="Stage names should be unique"
)
RESERVED_STAGE_NAME = Rule(
    name="ReservedStageName",
    page="reserved-stage-name",
    description="Reserved words should not be used as stage names",
)
JSON_ARGS = Rule(
    name="JSONArgsRecommended",
    page="json-args-recommended",
    description=("JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"),
)
MAINTAINER_DEPRECATED = Rule(
    name="MaintainerDeprecated",
    page="maintainer-deprecated",
    description=("The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
)
UNDEFINED_ARG_IN_FROM = Rule(
    name="UndefinedArgInFrom", page="undefined-arg-in-from", description="FROM command must use declared ARGs"
)
WORKDIR_RELATIVE = Rule(
    name="WorkdirRelativePath",
    page="workdir-relative-path",
    description=(
        "Relative workdir without an absolute workdir declared within the build can have unexpected results "
        "if the base image changes"
    ),
)
UNDEFINED_VAR = Rule(
    name="UndefinedVar", page="undefined-var", description="Variables should be defined before their use"
)
MULTIPLE_INSTRUCTIONS = Rule(
    name="MultipleInstructionsDisallowed",
    page="multiple-instructions-disallowed",
    description="Multiple instructions of the same type should not be used in the same stage",
)
LEGACY_KEY_VALUE = Rule(
    name="LegacyKeyValueFormat",
    page="legacy-key-value-format",
    description="Legacy key/value format with whitespace separator should not be used",
)
INVALID_PLATFORM = Rule(
    name="InvalidBaseImagePlatform", description="Base image platform does not match expected target platform"
)
REDUNDANT_PLATFORM = Rule(
    name="RedundantTargetPlatform",
    page="redundant-target-platform",
    description=("Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"),
)
SECRETS_USED = Rule(
    name="SecretsUsedInArgOrEnv",
    page="secrets-used-in-arg-or-env",
    description="Sensitive data should not be used in the ARG or ENV commands",
)
INVALID_DEFAULT_ARG = Rule(
    name="InvalidDefaultArgInFrom",
    page="invalid-default-arg-in-from",
    description="Default value for global ARG results in an empty or invalid base image name",
)
CONSTANT_PLATFORM = Rule(
    name="FromPlatformFlagConstDisallowed",
    page="from-platform-flag-const-disallowed",
    description="FROM --platform flag should not use a constant value",
)
COPY_IGNORED = Rule(
    name="CopyIgnoredFile",
    page="copy-ignored-file",
    description="Attempting to Copy file that is excluded by .dockerignore",
)
DEFINITION_DESCRIPTION = Rule(
    name="InvalidDefinitionDescription",
    page="invalid-definition-description",
    description=(
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this "
        "is not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment."
    ),
    experimental=True,
)
EXPOSE_CASING = Rule(
    name="ExposeProtoCasing",
    page="expose-proto-casing",
    description="Protocol in EXPOSE instruction should be lowercase",
)
EXPOSE_FORMAT = Rule(
    name="ExposeInvalidFormat",
    page="expose-invalid-format",
    description=(
        "IP address and host-port mapping should not be used in EXPOSE instruction. "
        "This will become an error in a future release"
    ),
)
