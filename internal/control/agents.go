package control

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/agentbin"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/datafs"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

// CallbackPath is where agents report to, below an infrastructure's callback_to.
const CallbackPath = "/berth/v1/callback"

// heartbeat is how often an agent says that it is alive.
const heartbeat = 10 * time.Second

// agents says what an attempt's agent is given. It implements engine.Agents.
type agents struct {
	host *Host
	keys agent.Keys
}

var _ engine.Agents = (*agents)(nil)

func (a *agents) Nonce(pod string) string { return a.keys.Nonce(pod) }

// Prepare makes the order of an attempt. Secret values are read here, at the
// last moment, and go to the driver alone.
func (a *agents) Prepare(ctx context.Context, infra berth.InfrastructureConfig, order engine.Order) (*engine.Agent, error) {
	out := &engine.Agent{Order: agent.Order{
		Streams: true,
		Version: agent.Version, Task: order.TaskID, Attempt: order.Attempt, Pod: order.Pod, Nonce: a.keys.Nonce(order.Pod),
		Steps: order.Spec.Steps,
	}}
	if infra.CallbackTo != "" {
		out.Order.Callback = &agent.Callback{
			URL: strings.TrimSuffix(infra.CallbackTo, "/") + CallbackPath, Token: a.keys.Token(order.TaskID, order.Pod),
			CA: a.host.callbackCA(), Heartbeat: heartbeat,
		}
	}
	if infra.Registry != "" {
		out.Registry = a.host.packages.login(infra, a.keys)
	}
	if dfs := infra.DFS; dfs != nil {
		out.Order.DFS = &agent.DFS{Path: dfs.Path, ReadOnly: dfs.ReadOnly, KeepWork: dfs.KeepWork}
	}
	if serve := order.Spec.Data; serve != nil {
		out.Order.Data = &agent.Data{Port: datafs.Port, TokenSum: datafs.TokenSum(a.keys.DataToken(serve.Seed)), Idle: dataIdle}
		return out, nil // its image is the agent's own
	}
	if call := order.Spec.Call; call != nil {
		if order.Spec.Labels[berth.LabelRun] != "" {
			out.Order.Files = a.files(infra, order)
		}
		out.Order.Call = &agent.Call{Function: call.Function, Arguments: map[string]json.RawMessage{}}
		secret := map[string]bool{}
		for _, input := range call.Secrets {
			secret[input] = true
		}
		for name, value := range call.Arguments {
			if !secret[name] {
				out.Order.Call.Arguments[name] = value
				continue
			}
			input, err := a.secretInput(name, value)
			if err != nil {
				return nil, a.refusal(berth.CauseConfigNotFound, "Secret input "+name+" has no value: "+err.Error()+".", "write the key into secrets.yml beside infra.yml, and run it again")
			}
			out.Secrets = append(out.Secrets, input)
		}
		if infra.Kind == berth.KindDocker && infra.Registry == "" {
			out.Load = a.host.packages.loader(call.Package, call.Digest)
		}
		return out, nil
	}
	out.Inject, out.Binary = true, agentbin.Binary
	if infra.Kind == berth.KindKube {
		image, err := a.host.packages.agentImage(ctx, infra)
		if err != nil {
			return nil, a.refusal(berth.CauseImageNotFound, "The agent that runs steps can't be had: "+err.Error()+".", "see agent_image and registry in docs/infra.md")
		}
		out.Image = image
	}
	return out, nil
}

// Proxy returns what the containers that send a pod's traffic through a proxy
// are made from: the agent.
func (a *agents) Proxy(ctx context.Context, infra berth.InfrastructureConfig) (*engine.Proxy, error) {
	if infra.AgentImage == "" && infra.Registry == "" {
		return nil, a.refusal(berth.CauseImageNotFound, "Infrastructure "+infra.Name+" has a proxy_address, and its pods can't get Berth's agent, which sends their traffic there.",
			"set registry: in infra.yml (Berth puts the agent there), or load it with berth package load berth/let and set agent_image: to what that prints")
	}
	image, err := a.host.packages.agentImage(ctx, infra)
	if err != nil {
		return nil, a.refusal(berth.CauseImageNotFound, "The agent that sends what tasks send to the proxy can't be had: "+err.Error()+".", "see agent_image and registry in docs/infra.md")
	}
	out := &engine.Proxy{Image: image}
	if infra.Registry != "" {
		out.Registry = a.host.packages.login(infra, a.keys)
	}
	return out, nil
}

// secretInput resolves the reference of a secret input.
func (a *agents) secretInput(name string, value json.RawMessage) (engine.SecretInput, error) {
	var reference string
	if err := json.Unmarshal(value, &reference); err != nil {
		return engine.SecretInput{}, berth.Errorf(berth.CodeInvalid, "its reference can't be read")
	}
	if rest, ok := strings.CutPrefix(reference, "kube:"); ok {
		object, key, found := strings.Cut(rest, "/")
		if !found {
			return engine.SecretInput{}, berth.Errorf(berth.CodeInvalid, "write kube:NAME/KEY")
		}
		return engine.SecretInput{Input: name, Ref: &engine.SecretRef{Name: object, Key: key}}, nil
	}
	key, ok := strings.CutPrefix(reference, "secret:")
	if !ok {
		return engine.SecretInput{}, berth.Errorf(berth.CodeInvalid, "write secret:KEY or kube:NAME/KEY")
	}
	secret, err := config.Secret(a.host.config.InfraPath, key)
	return engine.SecretInput{Input: name, Value: secret}, err
}

func (a *agents) refusal(cause berth.Cause, summary, remedy string) *engine.Refusal {
	return &engine.Refusal{Kind: engine.RefusedPermanent, Diagnosis: &berth.Diagnosis{
		Cause: cause, Summary: summary, Evidence: []berth.Evidence{}, Remedy: berth.Remedy{Text: remedy, By: berth.RemedyByUser},
	}}
}

func (a *agents) Completed(infrastructure string, task *berth.Task, c *agent.Completion) *berth.Diagnosis {
	if f := diagnosis.Completed(c, subject(infrastructure, task), time.Now()); f != nil {
		return &f.Diagnosis
	}
	return nil
}

// Told takes in the report of an agent with that token. CodeUnauthorized when
// the token isn't the attempt's; engine.ErrOver when the attempt has ended.
func (h *Host) Told(ctx context.Context, token string, report agent.Report) error {
	if told, err := h.fleet.told(ctx, &token, &report); told {
		return err
	}
	if !h.agents.keys.Valid(token, report.Task, report.Pod) {
		return berth.Errorf(berth.CodeUnauthorized, "the token is not the one of this attempt")
	}
	return h.engine.Told(ctx, report)
}
