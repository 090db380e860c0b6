"""Every command as a row: what it is called, what it takes, and which function words the request."""

from kestrel.cli.options import Command, Option

JSON = Option("--json", "print the answer as JSON")
QUIET = Option("-q --quiet", "print identities only")
PROCESS = (
    Option("-i --interactive", "keep stdin open"),
    Option("-t --tty", "give the process a terminal"),
    Option("-d --detach", "do not wait for it"),
    Option("-e --env", "set NAME=VALUE, or hand on NAME from here", kind="list", metavar="NAME[=VALUE]"),
    Option("-u --user", "user the process runs as", kind="value", metavar="USER[:GROUP]"),
    Option("-w --workdir", "directory the process starts in", kind="value", metavar="DIR"),
    Option("--privileged", "give every right the host's root has"),
)
RUN = (
    *PROCESS,
    Option("--rm", "remove the container when it ends"),
    Option("--name", "name of the container", kind="value", metavar="NAME"),
    Option("--pull", "always, missing or never", kind="value", metavar="POLICY", default="missing"),
    Option("-p --publish", "publish a port of the container", kind="list", metavar="[IP:][HOST:]PORT[/PROTO]"),
    Option("-v --volume", "mount a host path or a volume", kind="list", metavar="SOURCE:TARGET[:ro]"),
    Option("--tmpfs", "mount memory at a path", kind="list", metavar="PATH"),
    Option("--network", "bridge, host or none", kind="value", metavar="NETWORK", default="bridge"),
    Option(
        "--userns", "host for the host's users, private for users of its own or an error", kind="value", metavar="USERS"
    ),
    Option("--pid", "host for the host's processes", kind="value", metavar="PID"),
    Option("--ipc", "host for the host's shared memory and semaphores", kind="value", metavar="IPC"),
    Option("--device", "give a device of this machine", kind="list", metavar="SOURCE[:TARGET[:rwm]]"),
    Option("--hostname", "name the container has for itself", kind="value", metavar="NAME"),
    Option("--entrypoint", "replace the image's ENTRYPOINT", kind="value", metavar="COMMAND"),
    Option("-m --memory", "limit of memory", kind="value", metavar="SIZE"),
    Option("--cpus", "limit of processors", kind="number", metavar="N"),
    Option("--pids-limit", "limit of processes", kind="number", metavar="N"),
    Option("--shm-size", "size of /dev/shm (64m)", kind="value", metavar="SIZE"),
    Option("--ulimit", "limit of each process, such as nofile", kind="list", metavar="NAME=SOFT[:HARD]"),
    Option("--cap-add", "add a capability", kind="list", metavar="CAP"),
    Option("--cap-drop", "drop a capability", kind="list", metavar="CAP"),
    Option("--security-opt", "no-new-privileges, seccomp=unconfined or seccomp=FILE", kind="list", metavar="OPT"),
    Option("--read-only", "make the root filesystem read-only"),
    Option("--stop-signal", "signal that asks it to end", kind="value", metavar="SIGNAL"),
    Option("-l --label", "label of the container", kind="list", metavar="KEY=VALUE"),
)

PLATFORM, CONTAINERS, IMAGES = "platform", "containers", "images"

COMMANDS = (
    Command("demo", "build, push and run the example, and say what happened", "demo:demo", group=PLATFORM,
            words="[DIRECTORY]", options=(
                Option("--base", "base image to use", kind="value", metavar="IMAGE"), JSON)),
    Command("up", "start the platform", "platform:up", group=PLATFORM, options=(JSON,)),
    Command("down", "stop the platform; with --all containers, network and mounts too", "platform:down",
            group=PLATFORM, options=(Option("--all", "leave no process, mount, cgroup, link or firewall rule"),)),
    Command("status", "say what runs, where, and what this machine withholds", "platform:status", group=PLATFORM,
            options=(JSON,)),
    Command("df", "say what takes how much room", "platform:df", group=PLATFORM, options=(JSON,)),
    Command("run", "run a command in a new container", "run:run", group=CONTAINERS, words="IMAGE [COMMAND...]",
            options=RUN, rest=True),
    Command("ps", "list containers", "show:ps", group=CONTAINERS, options=(
        Option("-a --all", "ended ones too"), QUIET, JSON)),
    Command("logs", "print what a container wrote", "show:logs", group=CONTAINERS, words="CONTAINER", options=(
        Option("-f --follow", "go on as it writes"),
        Option("-n --tail", "only the last N lines", kind="value", metavar="N", default="all"),
        Option("--since", "only since a time or for a duration", kind="value", metavar="TIME"),
        Option("-t --timestamps", "show when each line was written"))),
    Command("exec", "run a command in a running container", "run:exec_", group=CONTAINERS,
            words="CONTAINER COMMAND...", options=PROCESS, rest=True),
    Command("start", "start a container that was created or has ended", "run:start", group=CONTAINERS,
            words="CONTAINER..."),
    Command("stop", "ask containers to end, then make them", "run:stop", group=CONTAINERS, words="CONTAINER...",
            options=(Option("-t --time", "seconds to wait before SIGKILL", kind="number", metavar="N"),)),
    Command("kill", "send a signal to containers", "run:kill", group=CONTAINERS, words="CONTAINER...",
            options=(Option("-s --signal", "the signal", kind="value", metavar="SIGNAL", default="KILL"),)),
    Command("wait", "wait until containers end and print their exit codes", "run:wait", group=CONTAINERS,
            words="CONTAINER..."),
    Command("rm", "remove containers", "run:rm", group=CONTAINERS, words="CONTAINER...", options=(
        Option("-f --force", "end them first"),)),
    Command("export", "write a container's files as a tar", "transfers:export", group=CONTAINERS, words="CONTAINER",
            options=(Option("-o --output", "write to a file instead of stdout", kind="value", metavar="FILE"),)),
    Command("commit", "make an image of a container", "transfers:commit", group=CONTAINERS, words="CONTAINER [NAME]",
            options=(Option("-a --author", "who made it", kind="value", metavar="NAME"),
                     Option("-m --message", "what was done", kind="value", metavar="TEXT"), JSON)),
    Command("inspect", "show all that is known of a container or an image", "show:inspect", words="NAME...",
            group=CONTAINERS),
    Command("explain", "say in plain words how a container is made and what it may do; with an image and the words of "
            "run, one that would be", "show:explain", group=CONTAINERS,
            words="CONTAINER|pod/NAME|IMAGE [COMMAND...]", options=(*RUN, JSON), rest=True),
    Command("build", "build an image from a Dockerfile", "build:build", group=IMAGES, words="CONTEXT", options=(
        Option("-t --tag", "name of the image", kind="list", metavar="NAME"),
        Option("-f --file", "the Dockerfile, - for the input", kind="value", metavar="FILE"),
        Option("--build-arg", "value of an ARG", kind="list", metavar="NAME[=VALUE]"),
        Option("--target", "stage to build", kind="value", metavar="STAGE"),
        Option("--no-cache", "run every step anew"),
        Option("--no-cache-filter", "run every step of a stage anew", kind="list", metavar="STAGE"),
        Option("--pull", "look for a newer base image"),
        Option("--secret", "id=NAME,src=FILE or id=NAME,env=VARIABLE, for RUN --mount", kind="list", metavar="SPEC"),
        Option("--ssh", "agent for RUN --mount=type=ssh and ADD of repositories", kind="list", metavar="NAME[=SOCKET]"),
        Option("--build-context", "a further context for --from and FROM", kind="list", metavar="NAME=CONTEXT"),
        Option("-o --output", "type=oci|docker|tar|local,dest=PATH[,compression=gzip|zstd]", kind="list",
               metavar="SPEC"),
        Option("--label", "label of the image", kind="list", metavar="NAME=VALUE"),
        Option("--network", "network of RUN steps: bridge, host or none", kind="value", metavar="NETWORK"),
        Option("--add-host", "a name that RUN finds in /etc/hosts", kind="list", metavar="NAME:ADDRESS"),
        Option("-m --memory", "limit of memory for each RUN", kind="value", metavar="SIZE"),
        Option("--cpus", "limit of processors for each RUN", kind="number", metavar="N"),
        Option("--shm-size", "size of /dev/shm of each RUN (64m)", kind="value", metavar="SIZE"),
        Option("--ulimit", "limit of each process of RUN", kind="list", metavar="NAME=SOFT[:HARD]"),
        Option("--hostname", "name that RUN has for itself", kind="value", metavar="NAME"),
        Option("--userns", "host: RUN has the host's users, of whom there are more than 65536", kind="value",
               metavar="USERS"),
        Option("--allow", "right that the Dockerfile may use: network.host", kind="list", metavar="RIGHT"),
        Option("--on-error", "shell: go into a RUN that fails, as it stands", kind="value", metavar="WHAT"),
        Option("--verify", "build twice, and name the first file and step that differ"),
        Option("--explain", "say of every step why it ran or was reused"),
        Option("--check", "look for mistakes and bad practice, and build nothing"),
        Option("--fix", "with --check: write the certain fixes into the Dockerfile"),
        Option("--context-report", "say what a build reads of the context and need not, and build nothing"),
        Option("--outline", "print what arguments and secrets a build takes"),
        Option("--targets", "print the stages that can be built"),
        Option("--progress", "auto, plain, tty, quiet, or rawjson: events as JSON lines", kind="value", metavar="WHAT"),
        Option("-q --quiet", "print the image's identity only"), JSON)),
    Command("builder", "let go of what the builder keeps, and say of each thing why (prune); show the logs of builds "
            "(logs)", "builder:builder", group=IMAGES, words="prune|logs [BUILD]", options=(
                Option("--dry-run", "with prune: remove nothing"),
                Option("--unused-for", "with prune: keep what was used within that time (168h)", kind="value",
                       metavar="DURATION"),
                Option("--keep", "with prune: keep no more than that, the last used first", kind="value",
                       metavar="SIZE"),
                Option("-a --all", "with prune: keep nothing"), JSON)),
    Command("images", "list images", "images:images", group=IMAGES, words="[NAME]", options=(QUIET, JSON)),
    Command("image", "make a base image out of Debian packages (bootstrap), say what an image's layers hold (layers), "
            "which keys were left in it (scan) or what sets two apart (diff)", "images:image", group=IMAGES,
            words="bootstrap|layers|scan|diff [NAME...]", options=(
                Option("--include", "packages to add, separated by commas", kind="list", metavar="PACKAGES"),
                Option("--variant", "minimal or python", kind="value", metavar="VARIANT"), JSON)),
    Command("pull", "fetch an image from a registry", "images:pull", group=IMAGES, words="NAME", options=(QUIET, JSON)),
    Command("push", "send an image to a registry", "images:push", group=IMAGES, words="NAME", options=(QUIET, JSON)),
    Command("login", "try credentials at a registry and keep them where docker does", "logins:login", group=IMAGES,
            words="REGISTRY", options=(
                Option("-u --username", "who we are there", kind="value", metavar="NAME"),
                Option("-p --password", "the password; better leave it out and type it", kind="value", metavar="TEXT"),
                Option("--password-stdin", "read the password from stdin"))),
    Command("logout", "forget the credentials of a registry", "logins:logout", group=IMAGES, words="REGISTRY"),
    Command("copy", "copy an image from one registry to another, for all its platforms", "images:copy", group=IMAGES,
            words="SOURCE TARGET", options=(
                Option("--platform", "only the image for one: linux/arm64", kind="value", metavar="PLATFORM"),
                Option("--referrers", "signatures and the like too"), QUIET, JSON)),
    Command("save", "write images as one tar: an OCI layout and a docker archive", "transfers:save", group=IMAGES,
            words="NAME...", options=(
                Option("-o --output", "write to a file instead of stdout", kind="value", metavar="FILE"),)),
    Command("load", "take images in from such a tar", "transfers:load", group=IMAGES, options=(
        Option("-i --input", "read a file instead of stdin", kind="value", metavar="FILE"), JSON)),
    Command("import", "make an image of a root filesystem's tar (- is stdin)", "transfers:import_", group=IMAGES,
            words="FILE [NAME]", options=(JSON,)),
    Command("tag", "give an image another name", "images:tag", group=IMAGES, words="SOURCE TARGET"),
    Command("rmi", "remove images", "images:rmi", group=IMAGES, words="NAME...", options=(
        Option("-f --force", "even if containers made from it exist"),)),
    Command("prune", "remove what nothing uses: ended containers, unnamed images, cache", "images:prune", group=IMAGES,
            options=(Option("-a --all", "named images that no container uses too"), JSON)),
    Command("registry", "accounts, keys and grants, tags and collections of this node's registry", "registry:registry",
            group=PLATFORM,
            words="user|robot|key|grant|why|upstream|immutable|history|rollback|deleted|restore|gc [WORDS...]",
            options=(
                Option("--grant", "with user add, robot add: what it may do", kind="list", metavar="PATTERN:ACTIONS"),
                Option("--label", "with key add: what the key is for", kind="value", metavar="TEXT"),
                Option("--days", "with key add, robot add: how long the key is good", kind="number", metavar="N"),
                Option("--default", "with upstream add: also for clients that take this registry for a mirror"),
                Option("--dry-run", "with gc: say of each blob why it stays or goes, and remove nothing"),
                Option("--untagged", "with gc: also remove manifests that have had no tag for a day"), JSON)),
    Command("version", "print the version", "platform:version", group=PLATFORM, options=(JSON,)),
)  # fmt: skip
"""In the order in which `kestrel --help` shows them."""
