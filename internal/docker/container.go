package docker

import (
	"maps"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// terminationGrace is between SIGTERM and SIGKILL: a shell as PID 1 ignores
	// SIGTERM, and who cancels wants it to end.
	terminationGrace = 10 * time.Second

	// labelTimeout keeps an attempt's time limit, which no Engine knows of.
	labelTimeout = "berth.run/timeout"
)

// renderContainer makes the container of an attempt, as unprivileged as the
// work allows. The image is what the Engine has; see [Driver.image].
func renderContainer(order engine.Order, config berth.InfrastructureConfig, image string) (*container.Config, *container.HostConfig, error) {
	spec := &order.Spec
	grace := int(terminationGrace / time.Second)
	c := &container.Config{
		Image: image, Hostname: order.Pod, Labels: labels(order, config), User: spec.User,
		Entrypoint: spec.Entrypoint, Cmd: spec.Args,
		StopTimeout: &grace,
		// A task has no health that anybody would look at.
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	env := spec.Env
	if order.Agent != nil {
		o := agentOrder(order)
		vars, err := o.Env()
		if err != nil {
			return nil, nil, err
		}
		env = append(vars, env...)
		c.Entrypoint, c.Cmd = []string{agent.Path}, nil
	}
	for _, v := range env {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	h := &container.HostConfig{
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapDrop:       []string{"ALL"},
		SecurityOpt:   []string{"no-new-privileges"},
		// Whatever the Engine is set to: this one can be read back, and keeps all
		// until the container is removed.
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1t", "max-file": "1", "compress": "false"}},
		Resources: resources(spec),
	}
	if bytes, err := spec.EphemeralStorage.Bytes(); err == nil {
		h.StorageOpt = map[string]string{"size": strconv.FormatInt(bytes, 10)}
	}
	return c, h, nil
}

func labels(order engine.Order, config berth.InfrastructureConfig) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, config.Pod.Labels)
	maps.Copy(labels, order.Spec.Labels)
	labels[berth.LabelManagedBy] = berth.LabelManagedByValue
	labels[berth.LabelInstance] = order.Instance
	labels[berth.LabelTask] = order.TaskID
	labels[berth.LabelAttempt] = strconv.Itoa(order.Attempt)
	if order.Spec.Name != "" {
		labels[berth.LabelName] = order.Spec.Name
	}
	if order.Spec.Timeout > 0 {
		labels[labelTimeout] = order.Spec.Timeout.String()
	}
	return labels
}

// leastCPU is the smallest share of a CPU that an Engine gives out.
const leastCPU = 10 // thousandths

func resources(spec *berth.TaskSpec) container.Resources {
	var r container.Resources
	if milli, err := spec.CPU.MilliCPU(); err == nil {
		r.NanoCPUs = max(milli, leastCPU) * 1e6
	}
	if bytes, err := spec.Memory.Bytes(); err == nil {
		r.Memory, r.MemorySwap = bytes, bytes // both: none of it is swap
	}
	if spec.GPU > 0 {
		r.DeviceRequests = []container.DeviceRequest{{Count: spec.GPU, Capabilities: [][]string{{"gpu"}}}}
	}
	return r
}

// timeLimit returns an attempt's time limit; zero for none.
func timeLimit(labels map[string]string) time.Duration {
	limit, err := time.ParseDuration(labels[labelTimeout])
	if err != nil {
		return 0
	}
	return limit
}

// parseTime reads a time of the Engine's; what never happened is the zero time.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t.UTC()
}
