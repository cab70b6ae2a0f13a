package control

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
)

func TestWhatAProbeTells(t *testing.T) {
	both := berth.InfrastructureConfig{Kind: berth.KindKube, Registry: "r:5000", CallbackTo: "https://c:1"}
	plain := berth.InfrastructureConfig{Kind: berth.KindKube, AgentImage: "r/agent:1"}
	docker := berth.InfrastructureConfig{Kind: berth.KindDocker, CallbackTo: "https://c:1"}
	trouble := &berth.Diagnosis{Summary: "No.", Remedy: berth.Remedy{Text: "mend it"}}
	const ok, warning, failed = berth.CheckOK, berth.CheckWarning, berth.CheckFailed
	for _, test := range []struct {
		name    string
		entry   berth.InfrastructureConfig
		failure *berth.Diagnosis
		started bool
		lookup  string
		want    map[string]berth.CheckStatus
	}{
		{"all is well", both, nil, true, `{"addresses": ["10.0.0.1"]}`, map[string]berth.CheckStatus{"pull": ok, "callback": ok, "dns": ok}},
		{"names are not resolved", both, nil, true, `{"error": "no such host"}`, map[string]berth.CheckStatus{"pull": ok, "callback": ok, "dns": warning}},
		{"the agent is older", both, nil, true, ``, map[string]berth.CheckStatus{"pull": ok, "callback": ok, "dns": warning}},
		{"the way back is barred", both, trouble, true, `{"addresses": ["10.0.0.1"]}`, map[string]berth.CheckStatus{"pull": ok, "callback": failed, "dns": ok}},
		{"the registry is barred", both, trouble, false, ``, map[string]berth.CheckStatus{"pull": failed, "callback": warning, "dns": warning}},
		{"names alone", plain, nil, true, `{"addresses": ["10.0.0.1"]}`, map[string]berth.CheckStatus{"dns": ok}},
		{"names alone, and no pod", plain, trouble, false, ``, map[string]berth.CheckStatus{"dns": failed}},
		{"an Engine has no DNS of its own", docker, nil, true, ``, map[string]berth.CheckStatus{"callback": ok}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProbed(test.entry)
			if test.failure != nil {
				p.fail(test.failure, test.started)
			}
			p.lookedUp(json.RawMessage(test.lookup))
			got := map[string]berth.CheckStatus{}
			for _, row := range p.rows() {
				switch row.What {
				case "pod → DNS":
					got["dns"] = row.Status
				case "pod → registry r:5000":
					got["pull"] = row.Status
				default:
					got["callback"] = row.Status
				}
				if row.Detail == "" || row.Group != berth.CheckPods || row.Status == failed && row.Remedy == "" {
					t.Errorf("%+v", row)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// onePod is a driver whose one pod is seen as these observations say, in turn.
type onePod struct {
	engine.Driver
	seen []berth.Observation
}

func (d *onePod) Watch(ctx context.Context, sink engine.Sink) {
	for _, o := range d.seen {
		o.Pod = "p"
		sink.Observed(o)
	}
	<-ctx.Done()
}

func (d *onePod) Create(context.Context, engine.Order) (string, error) { return "uid", nil }

func (d *onePod) Delete(context.Context, string, string, time.Duration) (engine.Deletion, error) {
	return engine.DeletionGone, nil
}

// What may pass is waited for; what is sure to stay is not.
func TestAPodThatRunsOnceIsGivenTime(t *testing.T) {
	diagnosed := func(cause berth.Cause) berth.Observation {
		return berth.Observation{Diagnosis: &berth.Diagnosis{Cause: cause, Summary: string(cause)}, Patience: berth.PatienceConfig}
	}
	done := berth.Observation{Outcome: &berth.Outcome{Result: json.RawMessage("1")}}
	for name, tt := range map[string]struct {
		seen []berth.Observation
		want berth.Cause
	}{
		"its node could not look up a Secret in time": {[]berth.Observation{diagnosed(berth.CauseUnknown), done}, ""},
		"the registry did not answer once":            {[]berth.Observation{diagnosed(berth.CauseRegistryUnreachable), done}, ""},
		"there is no such Secret":                     {[]berth.Observation{diagnosed(berth.CauseConfigNotFound), done}, berth.CauseConfigNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			outcome, _, err := runOnce(t.Context(), &connection{Driver: &onePod{seen: tt.seen}}, engine.Order{Pod: "p"}, time.Minute)
			switch {
			case err != nil:
				t.Fatal(err)
			case tt.want == "" && (outcome.Diagnosis != nil || outcome.Result == nil):
				t.Errorf("%+v", outcome.Diagnosis)
			case tt.want != "" && (outcome.Diagnosis == nil || outcome.Diagnosis.Cause != tt.want):
				t.Errorf("%+v", outcome.Diagnosis)
			}
		})
	}
}
