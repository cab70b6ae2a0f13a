package diagnosis

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Ending is how a container of a Docker Engine ended, or could not be started.
type Ending struct {
	ExitCode   int
	OOMKilled  bool
	StartError string        // what the Engine said of a start that failed: the program never ran
	Output     string        // all that the container wrote, where the runtime may have written it
	Overdue    time.Duration // the time limit that it ended after; zero when there was none, or it ended before
	At         time.Time
}

// DockerAnswer is what a Docker Engine answered to a request, or why it did not.
type DockerAnswer struct {
	Err      error
	Text     string
	Answered bool
	Status   int // HTTP; 0 for what comes while a pull is under way
	Is       DockerRefusal
}

// DockerRefusal is what the driver itself refuses, in place of the Engine.
type DockerRefusal int

const (
	DockerNone      DockerRefusal = iota
	DockerNoMemory                // more memory is asked for than there is
	DockerSecretRef               // a secret input is in Kubernetes
)

// DockerEnding says why a container ended as it did; nil when it succeeded.
func DockerEnding(end Ending, subject Subject, now time.Time) *Finding {
	f := &dockerFacts{subject: subject, ending: &end}
	finding := f.best(now)
	if finding != nil && end.At.Before(now) && !end.At.IsZero() {
		finding.Since = end.At
	}
	return finding
}

// DockerError says what an error of a Docker Engine's API means, for a verb
// such as "create", "start", "pull", "never pull", "get". It returns a finding
// for any error.
func DockerError(a DockerAnswer, verb string, subject Subject, now time.Time) *Finding {
	return (&dockerFacts{subject: subject, answer: &a, verb: verb}).best(now)
}

// dockerFacts is what the matchers of the Docker rows look at: an ending or an
// answer.
type dockerFacts struct {
	subject Subject
	ending  *Ending
	answer  *DockerAnswer
	verb    string
}

func (f *dockerFacts) best(now time.Time) *Finding {
	var found []match
	for i := range table {
		if r := &table[i]; r.onDocker != nil {
			if h := r.onDocker(f); h != nil {
				found = append(found, match{r, h})
			}
		}
	}
	return best(found, f.words(), now)
}

func (f *dockerFacts) words() map[string]string {
	w := f.subject.words()
	w["node"], w["the_node"], w["limit"], w["registry"] = "the Docker Engine", "The Docker Engine", string(f.subject.Memory), registryOf(f.subject.Image)
	if w["limit"] == "" {
		w["limit"] = "the machine's own memory"
	}
	if f.answer != nil {
		w["message"] = strings.TrimRight(word(f.answer.Text), ".")
	}
	return w
}

// exit is the evidence of how a container ended.
func (f *dockerFacts) exit() berth.Evidence {
	text := fmt.Sprintf("exit code %d", f.ending.ExitCode)
	if f.ending.OOMKilled {
		text += ", OOMKilled"
	}
	return berth.Evidence{Source: "container state", Text: text}
}

// ended makes the matcher of an ending.
func ended(match func(*Ending) bool, pairs func(*Ending) []string) func(*dockerFacts) *hit {
	return func(f *dockerFacts) *hit {
		if f.ending == nil || f.ending.StartError != "" || !match(f.ending) {
			return nil
		}
		var words []string
		if pairs != nil {
			words = pairs(f.ending)
		}
		return saw(f.exit(), words...)
	}
}

// dockerStarts makes the matcher of what the runtime says of a start.
func dockerStarts(pattern *regexp.Regexp) func(*dockerFacts) *hit {
	return func(f *dockerFacts) *hit {
		e := berth.Evidence{Source: "Docker Engine", Text: ""}
		switch {
		case f.answer != nil && f.answer.Answered && (f.verb == "start" || f.verb == "create"):
			e = f.evidence()
		case f.ending != nil && f.ending.StartError != "":
			e.Text = f.ending.StartError
		case f.ending != nil && execFailed.MatchString(f.ending.Output):
			e = berth.Evidence{Source: "the container's output", Text: f.ending.Output}
		default:
			return nil
		}
		m := pattern.FindStringSubmatch(e.Text)
		if m == nil {
			return nil
		}
		program := f.words()["command"]
		if len(m) > 1 && m[1] != "" {
			program = `"` + m[1] + `"`
		}
		return saw(e, "program", program)
	}
}

// answers makes the matcher of an answer by its text and HTTP status; no verbs
// are all verbs, no pattern is any text.
func answers(pattern *regexp.Regexp, statuses []int, verbs ...string) func(*dockerFacts) *hit {
	return func(f *dockerFacts) *hit {
		a := f.answer
		if a == nil || !a.Answered || a.Is != DockerNone ||
			len(verbs) > 0 && !slices.Contains(verbs, f.verb) || len(statuses) > 0 && !slices.Contains(statuses, a.Status) {
			return nil
		}
		text := a.Text
		if f.verb == "pull" {
			p := &pull{stuck: stuck{image: f.subject.Image}, text: text}
			text = p.nameless()
		}
		if pattern != nil && !pattern.MatchString(text) {
			return nil
		}
		h := saw(f.evidence(), "why", pullWhy(a.Text))
		if host := registryHost.FindStringSubmatch(a.Text); f.verb == "pull" && host != nil {
			h.words["registry"] = host[1]
		}
		return h
	}
}

func (f *dockerFacts) evidence() berth.Evidence {
	source := "Docker Engine"
	if f.answer.Status != 0 {
		source = fmt.Sprintf("Docker Engine, HTTP %d", f.answer.Status)
	}
	if !f.answer.Answered {
		source = "connection to the Docker Engine"
	}
	return berth.Evidence{Source: source, Text: f.answer.Text}
}

// refusedBy makes the matcher of what the driver refuses.
func refusedBy(is DockerRefusal) func(*dockerFacts) *hit {
	return func(f *dockerFacts) *hit {
		if f.answer == nil || f.answer.Is != is {
			return nil
		}
		return saw(berth.Evidence{Source: "berth", Text: f.answer.Text})
	}
}

var (
	dockerSocketDenied = regexp.MustCompile(`permission denied while trying to connect`)
	dockerNotThere     = regexp.MustCompile(`Cannot connect to the Docker daemon|failed to connect to the docker API|connection refused|no such file or directory`)
	dockerTLSWanted    = regexp.MustCompile(`HTTP request to an HTTPS server|TLS-enabled daemon without TLS|malformed HTTP response`)
	dockerClientCert   = regexp.MustCompile(`client authentication \(--tlsverify\)|bad certificate|certificate required`)
)

// connection says why no Engine answered.
func (f *dockerFacts) connection() *trouble {
	a := f.answer
	if a == nil || a.Answered {
		return nil
	}
	if dockerTLSWanted.MatchString(a.Text) {
		return &trouble{why: "it wants TLS, and tls: is not set"}
	}
	if t := newErrorFacts(a.Err, f.verb, "", f.subject).connection(); t != nil {
		return t
	}
	if dockerNotThere.MatchString(a.Text) {
		return &trouble{why: "nothing listens there"}
	}
	return &trouble{why: "the request failed on its way", sent: true}
}

// changes reports whether the request may have changed something.
func (f *dockerFacts) changes() bool {
	return slices.Contains([]string{"create", "start", "stop", "delete"}, f.verb)
}

func dockerConnection(f *dockerFacts) *hit {
	t := f.connection()
	if t == nil {
		return nil
	}
	h := saw(f.evidence(), "why", t.why)
	h.unknown = t.sent && f.changes()
	return h
}

// dockerBusy matches what an Engine can't do now, and perhaps did.
func dockerBusy(f *dockerFacts) *hit {
	a := f.answer
	if a == nil || !a.Answered || a.Status < http.StatusInternalServerError {
		return nil
	}
	return saw(f.evidence())
}
