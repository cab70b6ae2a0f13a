package diagnosis

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/berth-run/berth"
)

var (
	dockerNoSuchImage = regexp.MustCompile(`(?i)no such image`)
	dockerNoGPU       = regexp.MustCompile(`could not select device driver|nvidia-container-cli|no known GPU vendor`)
	dockerNoUser      = regexp.MustCompile(`unable to find user|unable to find group|no matching entries in`)
	dockerNoRoom      = regexp.MustCompile(`(?i)no space left on device|disk quota exceeded`)
	dockerCPUs        = regexp.MustCompile(`(?i)range of cpus is from`)
	dockerStorage     = regexp.MustCompile(`(?i)storage-opt|storage option`)
)

// as is a row of the table for a Docker Engine: it tells the same in the same
// words as the row for a cluster that has that rank.
func as(rows []row, rank int, own row) row {
	i := slices.IndexFunc(rows, func(r row) bool { return r.rank == rank })
	if i < 0 {
		panic(fmt.Sprintf("there is no row of rank %d", rank))
	}
	same := rows[i]
	same.onPod, same.onError = nil, nil
	same.rank, same.onDocker, same.retry, same.infrastructure = own.rank, own.onDocker, own.retry, own.infrastructure
	same.patience = own.patience
	if own.remedy != "" {
		same.remedy = own.remedy
	}
	if own.by != "" {
		same.by = own.by
	}
	return same
}

// dockerEndingRows: a container ended, or could not be started.
var dockerEndingRows = []row{
	{
		cause: berth.CauseTimedOut, rank: 1010,
		onDocker: ended(func(e *Ending) bool { return e.Overdue > 0 }, func(e *Ending) []string { return []string{"limit", e.Overdue.String()} }),
		means:    "The attempt took longer than --timeout. A Docker Engine knows no time limits: Berth ends the container, as soon as it sees that its time is over.",
		summary:  "The task was ended because it took longer than its time limit of {limit}, counted from its start.",
		remedy:   "give it more time with --timeout, or less to do",
		by:       berth.RemedyByUser,
	},
	as(endingRows, 150, row{rank: 1020, onDocker: ended(func(e *Ending) bool { return e.OOMKilled && e.ExitCode != 0 }, nil)}),
	as(containerRows, 190, row{rank: 1030, patience: berth.PatienceNone, onDocker: dockerStarts(startNoRoom)}),
	as(containerRows, 200, row{rank: 1040, patience: berth.PatienceNone, onDocker: dockerStarts(wrongFormat)}),
	as(containerRows, 210, row{rank: 1050, patience: berth.PatienceNone, onDocker: dockerStarts(notExecutable)}),
	as(containerRows, 220, row{rank: 1060, patience: berth.PatienceNone, onDocker: dockerStarts(notFound)}),
	as(containerRows, 225, row{rank: 1065, patience: berth.PatienceNone, onDocker: dockerStarts(noCommand)}),
	{
		cause: berth.CauseInsufficientGPU, rank: 1070, onDocker: dockerStarts(dockerNoGPU), patience: berth.PatienceNone,
		means:   "GPUs are asked for, and the Engine has none to give, or not that many.",
		summary: "The Docker Engine of infrastructure {infrastructure} has not the GPUs that the task asks for.",
		remedy:  "run it elsewhere with --on; or have a GPU and its container toolkit set up on that machine",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseConfigNotFound, rank: 1080, onDocker: dockerStarts(dockerNoUser), patience: berth.PatienceNone,
		means:   "The image runs as a user or group that it does not itself name in /etc/passwd and /etc/group.",
		summary: "Image {image} does not have the user or group that it is to run as.",
		remedy:  "say whom to run as with --user, such as --user 1000:1000, or correct USER in the image",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientEphemeralStorage, rank: 1085, onDocker: dockerStarts(dockerNoRoom), patience: berth.PatienceLaunch, retry: RetryTransient, infrastructure: true,
		means:   "The Engine's disk is full.",
		summary: "The disk of the Docker Engine of infrastructure {infrastructure} is full.",
		remedy:  "make room there, such as with docker system prune",
		by:      berth.RemedyByEngineer,
	},
	as(exitRows, 270, row{rank: 1100, onDocker: func(f *dockerFacts) *hit {
		if f.ending == nil || f.ending.StartError != "" || f.ending.ExitCode <= 128 || f.ending.ExitCode-128 >= len(signals) {
			return nil
		}
		n := f.ending.ExitCode - 128
		return saw(f.exit(), "signal", fmt.Sprintf("%d (%s)", n, signals[n]), "code", fmt.Sprint(f.ending.ExitCode), "hint", signalHint(n))
	}}),
	as(exitRows, 280, row{rank: 1110, onDocker: ended(func(e *Ending) bool { return e.ExitCode != 0 }, func(e *Ending) []string {
		return []string{"code", fmt.Sprint(e.ExitCode), "hint", exitHint(e.ExitCode)}
	})}),
	{
		cause: berth.CauseSandboxFailed, rank: 1190, infrastructure: true,
		onDocker: func(f *dockerFacts) *hit {
			if f.ending == nil {
				return nil
			}
			return dockerStarts(regexp.MustCompile(`(?s).`))(f)
		},
		means:   "The Engine could not start the container, for a reason that is not in this table.",
		summary: "The Docker Engine could not start the container of image {image}.",
		remedy:  "read the evidence, which has the Engine's own words, or show it to whoever runs the Engine",
		by:      berth.RemedyByEngineer,
	},
}

// dockerImageRows: the Engine has no image to make the container of.
var dockerImageRows = []row{
	as(imageRows, 300, row{rank: 1200, patience: berth.PatienceNone, onDocker: answers(regexp.MustCompile(`(?i)invalid reference format|invalid tag format|repository name must be lowercase`), nil)}),
	{
		cause: berth.CauseImageNeverPull, rank: 1210, onDocker: answers(nil, nil, "never pull"), patience: berth.PatienceNone,
		means:   "The task says never to pull its image, or names it by its ID, and the Engine doesn't have it.",
		summary: "The Docker Engine does not have image {image}, and it may not be fetched.",
		remedy:  "leave --pull never away, or have the image loaded into the Engine (docker load); an image named by its ID can't be fetched",
		by:      berth.RemedyByUser,
	},
	as(imageRows, 320, row{
		rank: 1220, retry: RetryTransient, patience: berth.PatiencePull, onDocker: answers(imageOtherCPU, nil, "pull"),
		remedy: "build the image for that processor too (docker buildx build --platform linux/amd64,linux/arm64), or run it elsewhere with --on",
	}),
	as(imageRows, 330, row{
		rank: 1230, retry: RetryTransient, patience: berth.PatienceLaunch, onDocker: answers(imageRateLimited, nil, "pull"),
		remedy: "wait, or log in to the registry (docker login, as the user that runs Berth), or use a copy in a registry of your own",
	}),
	{
		cause: berth.CauseRegistryUnreachable, rank: 1240, retry: RetryTransient, patience: berth.PatienceLaunch, onDocker: answers(imageUnreachable, nil, "pull"),
		means:   "The Engine can't talk to the registry: network, DNS, TLS, or the registry is down.",
		summary: "The Docker Engine cannot fetch image {image} from registry {registry}: {why}.",
		remedy:  "check the registry's name in the image; if it is right, the Engine's way to the registry or its trust in its certificate has to be mended",
		by:      berth.RemedyByEngineer,
	},
	as(imageRows, 350, row{
		rank: 1250, retry: RetryTransient, patience: berth.PatiencePull, onDocker: answers(imageUnauthorized, nil, "pull"),
		remedy: "check the name {image}; if it is private, log in: docker login {registry}, as the user that runs Berth",
	}),
	as(imageRows, 360, row{rank: 1260, retry: RetryTransient, patience: berth.PatiencePull, onDocker: answers(imageNotFound, nil, "pull")}),
	{
		cause: berth.CauseRegistryUnreachable, rank: 1270, retry: RetryTransient, patience: berth.PatienceLaunch, onDocker: answers(nil, nil, "pull"),
		means:   "The pull fails for a reason that is not in this table.",
		summary: "The Docker Engine cannot fetch image {image} from registry {registry}: {why}.",
		remedy:  "read the evidence, which has the Engine's own words",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseImageNotFound, rank: 1280, retry: RetryTransient, patience: berth.PatiencePull, onDocker: answers(dockerNoSuchImage, nil),
		means:   "The image was removed from the Engine before the container was made.",
		summary: "The Docker Engine no longer has image {image}.",
		remedy:  "nothing: Berth tries again",
		by:      berth.RemedyByUser,
	},
}

// dockerRefusalRows: the Engine refuses the container, or does not answer.
var dockerRefusalRows = []row{
	{
		cause: berth.CauseUnknown, rank: 1300, retry: RetryExists, onDocker: answers(regexp.MustCompile(`is already in use by container|name .* is already in use`), []int{http.StatusConflict}),
		means:   "A container of that name is there already. Berth looks whether it is its own.",
		summary: "The Docker Engine has a container {pod} already.",
		remedy:  "nothing: Berth looks whether it is its own, and takes another name otherwise",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseUnknown, rank: 1310, retry: RetryNotFound, onDocker: answers(regexp.MustCompile(`(?i)no such container`), nil),
		means:   "The container isn't there.",
		summary: "The Docker Engine has no container {pod}.",
		remedy:  "nothing, if it was removed on purpose",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientCPU, rank: 1320, patience: berth.PatienceNone, onDocker: answers(dockerCPUs, nil),
		means:   "More CPUs are asked for than the Engine's machine has.",
		summary: "The machine of the Docker Engine has less than the {cpu} CPUs that the task asks for.",
		remedy:  "ask for less with --cpu, or run it elsewhere with --on",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientMemory, rank: 1330, patience: berth.PatienceNone, onDocker: refusedBy(DockerNoMemory),
		means:   "More memory is asked for than the Engine's machine has.",
		summary: "The machine of the Docker Engine has less than the {memory} of memory that the task asks for.",
		remedy:  "ask for less with --memory, or run it elsewhere with --on",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseInsufficientEphemeralStorage, rank: 1350, patience: berth.PatienceNone, onDocker: answers(dockerStorage, nil),
		means:   "A limit of local disk is asked for, which the Engine's storage can't keep.",
		summary: "The Docker Engine of infrastructure {infrastructure} can't limit local disk: {message}.",
		remedy:  "leave --ephemeral-storage away, or run it elsewhere with --on",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseConfigNotFound, rank: 1360, patience: berth.PatienceNone, onDocker: refusedBy(DockerSecretRef),
		means:   "A secret input names a Secret of Kubernetes, which a Docker Engine doesn't have.",
		summary: "A Docker Engine has no Secrets of Kubernetes: {message}.",
		remedy:  "write its value into secrets.yml beside infra.yml, and pass it as secret:KEY",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseForbidden, rank: 1370, retry: RetryForbidden, patience: berth.PatienceForever, onDocker: answers(nil, []int{http.StatusForbidden}),
		means:   "A plugin of the Engine forbids the request.",
		summary: "The Docker Engine of infrastructure {infrastructure} forbids this: {message}.",
		remedy:  "have it allowed by whoever runs the Engine",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnauthorized, rank: 1380, retry: RetryUnauthorized, patience: berth.PatienceForever,
		onDocker: func(f *dockerFacts) *hit {
			switch {
			case f.answer == nil:
				return nil
			case f.answer.Answered && f.answer.Status == http.StatusUnauthorized:
				return saw(f.evidence(), "why_not", "it does not accept who asks")
			case !f.answer.Answered && dockerSocketDenied.MatchString(f.answer.Text):
				return saw(f.evidence(), "why_not", "this user may not use its socket")
			case !f.answer.Answered && dockerClientCert.MatchString(f.answer.Text):
				return saw(f.evidence(), "why_not", "it does not accept the certificate, or wants one")
			}
			return nil
		},
		means:   "The Engine doesn't let us in: this user may not use its socket, or it wants another certificate.",
		summary: "The Docker Engine of infrastructure {infrastructure} at {server} does not let us in: {why_not}.",
		remedy:  "for a socket, have this user added to the group docker and log in anew; for tcp://, set tls: of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseAdmissionDenied, rank: 1390, patience: berth.PatienceNone, onDocker: answers(nil, []int{http.StatusBadRequest}, "create", "start"),
		means:   "The Engine refuses the container as invalid.",
		summary: "The Docker Engine refuses this task: {message}.",
		remedy:  "change what the message objects to",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseClusterUnreachable, rank: 1400, retry: RetryUnreachable, patience: berth.PatienceForever, onDocker: dockerConnection,
		means:   "No Docker Engine answers: it doesn't run, the address is wrong, network, DNS or TLS. Tasks stay as they are, and go on when it is back.",
		summary: "The Docker Engine of infrastructure {infrastructure} cannot be reached at {server}: {why}.",
		remedy:  "see whether it runs (docker -H {server} info), and check address: and tls: in infra.yml; tasks go on when it is back",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseClusterUnreachable, rank: 1410, retry: RetryTransient, patience: berth.PatienceLaunch, onDocker: dockerBusy,
		means:   "The Engine has trouble of its own. Berth tries again, ever more slowly.",
		summary: "The Docker Engine of infrastructure {infrastructure} can't do this now: {message}.",
		remedy:  "wait; if it stays, show the evidence to whoever runs the Engine",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 1490, retry: RetryTransient, patience: berth.PatienceLaunch,
		onDocker: func(f *dockerFacts) *hit {
			if f.answer == nil {
				return nil
			}
			return saw(f.evidence())
		},
		means:   "The Engine refused a request in words that are not in this table.",
		summary: "The Docker Engine of infrastructure {infrastructure} refused: {message}.",
		remedy:  "read the evidence, which has the Engine's own words",
		by:      berth.RemedyByUser,
	},
}
