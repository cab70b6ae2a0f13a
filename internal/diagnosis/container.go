package diagnosis

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/berth-run/berth"
)

const interruption = `(?:context canceled|context deadline exceeded|signal: killed|connection refused|transport is closing|ttrpc: closed|shim disconnected|error reading from server: EOF)`

var (
	startReasons = []string{"StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError"}

	execName      = `exec:? "?([^":\s]+)"?`
	notFound      = regexp.MustCompile(execName + `: (?:executable file not found|stat [^:]*: no such file|no such file or directory)|executable file .{1,200} not found`)
	notExecutable = regexp.MustCompile(execName + `: (?:permission denied|is a directory)`)
	wrongFormat   = regexp.MustCompile(`(?m)` + execName + `: exec format error|exec user process caused:? "?exec format error`)
	// The whole message of a container that the kernel refused after the start,
	// as runc writes it to the container's own output.
	execFailed = regexp.MustCompile(`^(?:standard_init_linux\.go:\d+: )?exec(?: user process caused| /\S+):? "?(?:exec format error|no such file or directory|permission denied)"?\s*$`)
	// The runtime was interrupted before it made the container's process, or
	// while it started it: its kubelet, or a part of its own, ended.
	interrupted      = regexp.MustCompile(`failed to create containerd task: .*` + interruption)
	startInterrupted = regexp.MustCompile(`failed to start containerd task .*` + interruption)
	noCommand        = regexp.MustCompile(`(?i)no command specified`)
	startNoRoom      = regexp.MustCompile(`(?i)OOM-killed|memory limit too low|minimum memory limit`)
	runsAsRoot       = regexp.MustCompile(`runAsNonRoot and image|breaks non-root policy|image will run as root`)
)

// starting returns what the runtime said when it could not start the main
// container.
func (f *podFacts) starting() (berth.Evidence, string, bool) {
	if t := f.terminated(); t != nil {
		text := plain(t.Message)
		e := berth.Evidence{Source: "container status terminated " + word(t.Reason), Text: text}
		own := slices.Contains(startReasons, t.Reason) || execFailed.MatchString(text)
		return e, text, own && text != ""
	}
	if s, ok := f.waiting(startReasons...); ok {
		return s.evidence(), s.message, true
	}
	return berth.Evidence{}, "", false
}

// starts makes the matcher of what the runtime says of a start.
func starts(pattern *regexp.Regexp) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		e, text, ok := f.starting()
		if !ok {
			return nil
		}
		m := pattern.FindStringSubmatch(text)
		if m == nil {
			return nil
		}
		program := f.words()["command"]
		if len(m) > 1 && m[1] != "" {
			program = `"` + m[1] + `"`
		}
		return saw(e, "program", program, "limit", f.memoryLimit())
	}
}

var containerRows = []row{
	{
		cause: berth.CauseOOMKilled, rank: 190, onPod: starts(startNoRoom),
		means:   "The memory limit is too small even to start the container.",
		summary: "The memory limit of {limit} is too small even to start the container.",
		remedy:  "ask for more with --memory{memory_now}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseArchitectureMismatch, rank: 200, onPod: starts(wrongFormat), patience: berth.PatienceNone, exitCode: 126,
		means:   "The program is built for another kind of processor than the node's, or is a script without a #! line.",
		summary: "{the_node} cannot run {program}: it is built for another kind of processor, or is a script without a first line such as #!/bin/sh.",
		remedy:  "build image {image} for the node's processor (docker buildx build --platform linux/amd64), or give the script its #! line",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseCommandNotExecutable, rank: 210, onPod: starts(notExecutable), patience: berth.PatienceNone, exitCode: 126,
		means:   "The command is in the image, but can't be run: no execute permission for this user, or a directory.",
		summary: "{program} is in image {image}, but cannot be run: it is a directory or this user may not execute it.",
		remedy:  "make it executable in the image (chmod +x), or run it by its interpreter, as in: sh SCRIPT",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseCommandNotFound, rank: 220, onPod: starts(notFound), patience: berth.PatienceNone, exitCode: 127,
		means:   "The image has no such command, or none at all was given.",
		summary: "Image {image} has no command {program}.",
		remedy:  "check the command's name and that image {image} has it; words after the image are the arguments of the image's own entrypoint, which --entrypoint replaces",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseCommandNotFound, rank: 225, onPod: starts(noCommand), patience: berth.PatienceNone, exitCode: 127,
		means:   "The image has no command of its own, and the task gives none.",
		summary: "Image {image} has no command of its own, and the task gives none.",
		remedy:  "write the command after the image: berth run {image} COMMAND",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRunAsNonRootViolated, rank: 230, patience: berth.PatienceNone,
		onPod: func(f *podFacts) *hit {
			s, ok := f.waiting("CreateContainerConfigError", "CreateContainerError")
			if !ok || !runsAsRoot.MatchString(s.message) {
				return nil
			}
			return saw(s.evidence(), "image", cmp.Or(s.image, f.words()["image"]))
		},
		means:   "The namespace forbids programs to run as root, and the image runs as root or names its user without a number.",
		summary: "Image {image} would run as root, or names its user without a number, and this namespace allows numbered users other than root only.",
		remedy:  "say whom to run as with --user, such as --user 1000:1000",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseSandboxFailed, rank: 435, patience: berth.PatienceConfig, infrastructure: true, onPod: starts(interrupted),
		means:   "The node's kubelet or container runtime ended while it made the container. The program never ran.",
		summary: "{the_node} was interrupted while it made the container of image {image}; the program never ran.",
		remedy:  "nothing if it happens once: the task is tried again; if it stays, the node's kubelet and container runtime have to be looked at",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseSandboxFailed, rank: 436, patience: berth.PatienceConfig, infrastructure: true, began: true, onPod: starts(startInterrupted),
		means:   "The node's kubelet or container runtime ended while it started the container. Nobody knows whether the program began, so it is run again only where --retries or idempotent allow that.",
		summary: "{the_node} was interrupted while it started the container of image {image}; the program may have begun.",
		remedy:  "submit it again, with --retries or idempotent: true where it may run twice; if it happens again, the node's kubelet and container runtime have to be looked at",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseUnknown, rank: 440, patience: berth.PatienceConfig, onPod: starts(regexp.MustCompile(``)),
		means:   "The container could not be created or started, for a reason that is not in this table.",
		summary: "{the_node} could not start the container of image {image}.",
		remedy:  "read the evidence, which has the node's own words, or show it to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
}
