package kube

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// agentInit is the init container that brings the agent into an image
	// which doesn't have it.
	agentInit   = "agent"
	agentVolume = "berth-agent"
	agentShare  = "/berth-share" // where the init container sees the volume

	// messageLimit is what an agent may leave as termination message: the
	// kubelet keeps 4 KiB a container.
	messageLimit = 3 << 10

	secretVar = "BERTH_SECRET_"
)

// addAgent makes the agent PID 1 of the pod's main container.
func addAgent(pod *corev1.Pod, order engine.Order) error {
	main := &pod.Spec.Containers[0]
	given := order.Agent
	o := given.Order
	o.Message = agent.Message{Path: corev1.TerminationMessagePathDefault, Limit: messageLimit}
	var secrets []corev1.EnvVar
	if o.Call != nil && len(given.Secrets) > 0 {
		call := *o.Call
		call.Secrets = map[string]string{}
		for i, s := range given.Secrets {
			name := secretVar + strconv.Itoa(i)
			ref := corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: order.Pod}, Key: secretKey(i)}
			if s.Ref != nil {
				ref = corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: s.Ref.Name}, Key: s.Ref.Key}
			}
			secrets = append(secrets, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &ref}})
			call.Secrets[s.Input] = "env:" + name
		}
		o.Call = &call
	}
	vars, err := o.Env()
	if err != nil {
		return err
	}
	main.Command, main.Args = []string{agent.Path}, nil
	main.Env = slices.Concat(env(vars), secrets, main.Env)
	if security := pod.Spec.SecurityContext; o.Data != nil && security.RunAsUser == nil && security.RunAsNonRoot == nil {
		// As most tasks do, whose files it is to reach; its image's user is another.
		security.RunAsUser, security.RunAsGroup = ptr(int64(0)), ptr(int64(0))
	}
	if given.Inject {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: agentVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{
			Name: agentInit, Image: given.Image, ImagePullPolicy: pullPolicy(&berth.TaskSpec{Image: given.Image, Pull: berth.PullMissing}),
			Command:         []string{agent.Path, "install", agentShare + "/berthlet"},
			Resources:       *main.Resources.DeepCopy(),
			VolumeMounts:    []corev1.VolumeMount{{Name: agentVolume, MountPath: agentShare}},
			SecurityContext: main.SecurityContext.DeepCopy(),
		})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: agentVolume, MountPath: agent.Dir})
	}
	return nil
}

// hasAgent returns the nonce of a pod whose main container is the agent.
func hasAgent(pod *corev1.Pod) (nonce string, ok bool) {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.Name != MainContainer || len(c.Command) != 1 || c.Command[0] != agent.Path {
			continue
		}
		var environ []string
		for _, v := range c.Env {
			environ = append(environ, v.Name+"="+written([]string{v.Value})[0])
		}
		if order, _, err := agent.ReadOrder(environ); err == nil {
			return order.Nonce, true
		}
		return "", true
	}
	return "", false
}

// reports reads completions that are in logs, as they don't fit into a
// termination message. Reading takes a call, so the pod is observed again when
// it is done.
type reports struct {
	mu      sync.Mutex
	reading map[types.UID]bool
	read    map[types.UID]*agent.Completion
	observe func(*corev1.Pod) // of the watch that is under way
}

func newReports() *reports {
	return &reports{reading: map[types.UID]bool{}, read: map[types.UID]*agent.Completion{}}
}

// keep drops what belongs to pods that went while nobody watched.
func (r *reports) keep(pods map[types.UID]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.read, func(uid types.UID, _ *agent.Completion) bool { return !pods[uid] })
}

// completion returns what the agent of an ended pod left. wait says that it is
// being read, and that the pod will be observed again.
func (d *Driver) completion(pod *corev1.Pod, t *corev1.ContainerStateTerminated, nonce string, gone bool) (c *agent.Completion, wait bool) {
	c, block, err := agent.DecodeMessage([]byte(t.Message))
	if err != nil || c != nil {
		return c, false
	}
	r := d.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.read[pod.UID]; c != nil {
		if gone {
			delete(r.read, pod.UID)
		}
		return c, false
	}
	if gone {
		return unread(block, int(t.ExitCode), "the pod was deleted before"), false
	}
	if !r.reading[pod.UID] {
		r.reading[pod.UID] = true
		go func() {
			c := d.readReport(pod, nonce, block, int(t.ExitCode))
			r.mu.Lock()
			delete(r.reading, pod.UID)
			r.read[pod.UID] = c
			observe := r.observe
			r.mu.Unlock()
			observe(pod)
		}()
	}
	return nil, true
}

// readReport reads a report from the end of the log: its last lines, or where
// those aren't enough all of it.
func (d *Driver) readReport(pod *corev1.Pod, nonce string, block *agent.Block, code int) *agent.Completion {
	var last error
	for wait := 100 * time.Millisecond; wait < 10*time.Second; wait *= 2 {
		for _, lines := range []*int64{ptr(int64(1000)), nil} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			c, err := d.readBlock(ctx, pod.Name, nonce, block, lines)
			cancel()
			if err == nil {
				return c
			}
			last = err
			if apierrors.IsNotFound(err) {
				return unread(block, code, "the pod is gone")
			}
		}
		time.Sleep(wait)
	}
	return unread(block, code, last.Error())
}

func (d *Driver) readBlock(ctx context.Context, pod, nonce string, block *agent.Block, lines *int64) (*agent.Completion, error) {
	stream, err := d.client.Clientset.CoreV1().Pods(d.client.Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: MainContainer, Timestamps: true, TailLines: lines}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	return agent.ReadBlock(io.Reader(stream), nonce, block)
}

// unread stands for a report that can't be had any more.
func unread(block *agent.Block, code int, why string) *agent.Completion {
	return &agent.Completion{ExitCode: code, Fault: &agent.Fault{
		Cause: berth.CauseResultMissing, Summary: fmt.Sprintf("The program ended with exit code %d, and its result of %d bytes could not be read from the log: %s.", code, block.Size, why),
		Remedy: "run it again; with callback_to in infra.yml a result does not depend on the log",
	}}
}
