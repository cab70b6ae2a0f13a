package redirect

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/berth-run/berth/internal/agent"
)

// keep writes down what was counted until it is told to end, so that nothing is
// missing when the sidecar is killed.
func (s *sidecar) keep(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
		s.mu.Lock()
		s.save(s.trouble)
		s.mu.Unlock()
		if ended {
			return
		}
	}
}

func (s *sidecar) report(trouble string) agent.ProxyReport {
	return agent.ProxyReport{
		SentBytes: s.sent.Load(), ReceivedBytes: s.received.Load(), Connections: s.connections.Load(), Trouble: trouble, Troubles: s.troubles.Load(),
	}
}

// save leaves the report where the kubelet, the next sidecar and the probes
// look, unless it is there already.
func (s *sidecar) save(trouble string) {
	report := s.report(trouble)
	if report == s.saved {
		return
	}
	s.saved = report
	message := report.Encode()
	_ = os.WriteFile(s.order.MessageFile(), message, 0o600)
	path := s.order.File("report")
	if os.WriteFile(path+".new", message, 0o600) == nil {
		_ = os.Rename(path+".new", path)
	}
}

// resume goes on counting where a sidecar before ended.
func (s *sidecar) resume() {
	data, err := os.ReadFile(s.order.File("report"))
	if before := agent.DecodeProxyReport(string(data)); err == nil && before != nil {
		s.sent.Store(before.SentBytes)
		s.received.Store(before.ReceivedBytes)
		s.connections.Store(before.Connections)
		s.troubles.Store(before.Troubles)
	}
	s.save(s.trouble)
}

// notAsked stands for trouble until the first answer.
const notAsked = "the proxy has not answered yet"

// readyLimit is how long a probe waits for the proxy.
const readyLimit = 4 * time.Second

// Ready waits until the proxy can be used, or says why it can't.
func Ready(ctx context.Context, order *agent.Proxy) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		err := Usable(ctx, order)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Usable says whether the proxy can be used now, as the sidecar wrote it down.
func Usable(_ context.Context, order *agent.Proxy) error {
	data, err := os.ReadFile(order.File("report"))
	report := agent.DecodeProxyReport(string(data))
	switch {
	case err != nil || report == nil || report.Trouble == notAsked:
		return errors.New(notAsked)
	case report.Trouble != "":
		return errors.New(agent.ProxyTrouble + ": " + report.Trouble)
	}
	return nil
}
