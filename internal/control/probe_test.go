package control

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
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
