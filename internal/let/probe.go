package let

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// lookupLimit bounds how long a name is asked for: a resolver that is silent
// would be asked again for half a minute.
const lookupLimit = 5 * time.Second

// runProbe finds out whether the control plane can be reached from here, and
// whether names are resolved.
func runProbe(p *agent.Probe) *agent.Completion {
	c := reach(p)
	if p.Name == "" {
		return c
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupLimit)
	defer cancel()
	var found agent.Lookup
	var err error
	if found.Addresses, err = net.DefaultResolver.LookupHost(ctx, p.Name); err != nil {
		found.Error = err.Error()
	}
	if result, err := json.Marshal(found); err == nil {
		c.Result = result
	}
	return c
}

// reach finds out whether the control plane can be reached from here.
func reach(p *agent.Probe) *agent.Completion {
	if p.URL == "" {
		return &agent.Completion{}
	}
	transport := &http.Transport{TLSClientConfig: trusting(p.CA)}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	// A server that was just started, or a network that is just being set up,
	// may take a moment.
	var last error
	for range 3 {
		response, err := client.Get(p.URL) //nolint:noctx // its time is bounded by the client
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return &agent.Completion{}
			}
			err = fmt.Errorf("it answered %s, which a Berth server does not", response.Status)
		}
		last = err
		time.Sleep(300 * time.Millisecond)
	}
	return &agent.Completion{ExitCode: 1, Fault: &agent.Fault{
		Cause: berth.CauseCallbackUnreachable, Summary: fmt.Sprintf("A pod can't reach the control plane at %s: %v.", p.URL, last),
		Evidence: []berth.Evidence{{Source: "agent in a pod", Text: last.Error()}},
	}}
}
