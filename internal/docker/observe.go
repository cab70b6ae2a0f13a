package docker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/diagnosis"
)

// observe puts a container into the engine's terms. It asks for what an ended
// one left; an error says that it could not be had, and has to be asked again.
func (d *Driver) observe(ctx context.Context, c *container.InspectResponse) (berth.Observation, error) {
	o := identified(strings.TrimPrefix(c.Name, "/"), c.ID, c.Config.Labels)
	o.Image, o.ImageID, o.Pulled = c.Config.Image, c.Image, true
	if h := d.host.Load(); h != nil {
		o.Node = h.name
	}
	o.StartedAt = parseTime(c.State.StartedAt)
	if neverStarted(c) || c.State.Running || c.State.Restarting {
		return o, nil
	}
	if ended := parseTime(c.State.FinishedAt); !ended.IsZero() && ended.Before(o.StartedAt) {
		o.StartedAt = ended // each is told by another part of the Engine
	}
	end := diagnosis.Ending{ExitCode: c.State.ExitCode, OOMKilled: c.State.OOMKilled, At: parseTime(c.State.FinishedAt)}
	if c.State.Status == container.StateRemoving && end.ExitCode == 137 {
		return o, nil // somebody removes it with force: it is gone in a moment
	}
	if o.StartedAt.IsZero() {
		end.StartError = c.State.Error
	} else if limit := timeLimit(c.Config.Labels); limit > 0 && !end.At.Before(o.StartedAt.Add(limit)) {
		end.Overdue = limit
	}
	var completion *agent.Completion
	if hasAgent(c) && !o.StartedAt.IsZero() {
		var err error
		if completion, err = d.completion(ctx, c.ID); err != nil {
			return o, err
		}
	} else if quickFailure(c.State.ExitCode, end.At.Sub(o.StartedAt)) {
		end.Output = d.firstWords(ctx, c.ID)
	}
	o.EndedAt = end.At
	o.Outcome = d.outcome(c, end, completion)
	return o, nil
}

// identified is an observation of nothing but which container it is of.
func identified(name, id string, labels map[string]string) berth.Observation {
	attempt, _ := strconv.Atoi(labels[berth.LabelAttempt])
	return berth.Observation{TaskID: labels[berth.LabelTask], Attempt: attempt, Pod: name, UID: id}
}

func (d *Driver) outcome(c *container.InspectResponse, end diagnosis.Ending, completion *agent.Completion) *berth.Outcome {
	subject := d.subject(c)
	finding := diagnosis.DockerEnding(end, subject, time.Now())
	if hasAgent(c) && end.StartError == "" {
		return diagnosis.AgentOutcome(completion, end.ExitCode, finding, subject, time.Now())
	}
	out := &berth.Outcome{NeverStarted: end.StartError != ""}
	if code := end.ExitCode; end.StartError == "" {
		out.ExitCode = &code
	}
	if finding != nil {
		out.Diagnosis, out.ByCluster = &finding.Diagnosis, finding.Infrastructure
		if finding.ExitCode != nil {
			out.ExitCode = finding.ExitCode
		}
	}
	return out
}

// completion reads the report that an agent left; nil when it left none.
func (d *Driver) completion(ctx context.Context, id string) (*agent.Completion, error) {
	data, err := d.readFile(ctx, id, reportPath, reportLimit)
	if err != nil {
		if missing(err) {
			return nil, nil
		}
		return nil, err
	}
	c, _, err := agent.DecodeMessage(data)
	if err != nil {
		return nil, nil //nolint:nilerr // it was killed before it could write one
	}
	return c, nil
}

// quickFailure reports whether a program failed so soon that it may be the
// kernel that refused it after the start, which only the log tells.
func quickFailure(code int, ran time.Duration) bool {
	return (code == 1 || code == 126 || code == 127 || code == 255) && ran < 2*time.Second
}

// firstWords returns the beginning of a container's log, without times.
func (d *Driver) firstWords(ctx context.Context, id string) string {
	stream, err := d.openLog(ctx, id, time.Time{}, false)
	if err != nil {
		return ""
	}
	defer stream.Close()
	var text limitedText
	if err := (&demultiplexer{w: &text}).copy(stream); err != nil {
		return ""
	}
	var words strings.Builder
	for line := range strings.Lines(text.String()) {
		_, _, content, _ := agent.CutLine([]byte(line))
		words.Write(content)
	}
	return strings.TrimSpace(words.String())
}

// limitedText keeps what a message of a runtime can be long.
type limitedText struct{ strings.Builder }

func (t *limitedText) Write(p []byte) (int, error) {
	if t.Len()+len(p) > 2000 {
		return 0, errTooLong
	}
	return t.Builder.Write(p)
}

// subject names what diagnoses speak of.
func (d *Driver) subject(c *container.InspectResponse) diagnosis.Subject {
	s := diagnosis.Subject{
		Infrastructure: d.config.Name, Server: d.client.Server, Pod: strings.TrimPrefix(c.Name, "/"),
		Task: c.Config.Labels[berth.LabelTask], Image: c.Config.Image, Command: append([]string{c.Path}, c.Args...),
	}
	if c.HostConfig != nil && c.HostConfig.Memory > 0 {
		s.Memory = quantity(c.HostConfig.Memory)
	}
	return s
}

// quantity writes bytes as people do.
func quantity(bytes int64) berth.Quantity {
	for _, unit := range []string{"", "Ki", "Mi", "Gi", "Ti"} {
		if bytes%1024 != 0 || unit == "Ti" {
			return berth.Quantity(strconv.FormatInt(bytes, 10) + unit)
		}
		bytes /= 1024
	}
	return ""
}
