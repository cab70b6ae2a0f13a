// Package agent is what the control plane and the agent inside a container
// (berthlet, package let) say to each other: the order that the agent is
// started with, what it reports by callback and by the container itself, and
// how it frames what readers of a log must not see. It is data and its
// encoding; it runs nothing. Images keep the agent that they were built with,
// so fields are only ever added.
package agent

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// Where things are inside a container. A package's image has the first three
// from its build; any other image gets the agent put there.
const (
	Dir         = "/.berth"
	Path        = Dir + "/berthlet"     // static, executable
	PackageFile = Dir + "/package.json" // a berth.Package
	SecretsDir  = Dir + "/secrets"      // where a driver has no better place
)

// Version of the protocol that this code speaks.
const Version = 1

// Order is what an agent is to do.
type Order struct {
	Version int    `json:"version"`
	Task    string `json:"task"`
	Attempt int    `json:"attempt"`
	Pod     string `json:"pod"`

	Steps []berth.Step `json:"steps,omitempty"` // or
	Call  *Call        `json:"call,omitempty"`
	Probe *Probe       `json:"probe,omitempty"`
	Data  *Data        `json:"data,omitempty"`
	DFS   *DFS         `json:"dfs,omitempty"`   // the shared filesystem, where there is one
	Files *Files       `json:"files,omitempty"` // where files of a workflow come from and go to

	Nonce    string    `json:"nonce"`             // of frames in the log; see Frame
	Streams  bool      `json:"streams,omitempty"` // mark what is of stderr in the log
	Message  Message   `json:"message"`
	Callback *Callback `json:"callback,omitempty"`
}

// Call is the function to run; its definition is in PackageFile.
type Call struct {
	Function  string                     `json:"function"`
	Arguments map[string]json.RawMessage `json:"arguments"`         // without secret ones
	Secrets   map[string]string          `json:"secrets,omitempty"` // input → "env:NAME" or "file:PATH", where its value is
}

// Probe asks whether a URL can be reached, and a name be resolved, from where
// the agent runs. What becomes of the name is the completion's result, a Lookup.
type Probe struct {
	URL  string `json:"url,omitempty"`
	CA   string `json:"ca,omitempty"` // PEM; empty: the system's
	Name string `json:"name,omitempty"`
}

// Lookup is what became of the name of a probe.
type Lookup struct {
	Addresses []string `json:"addresses,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// Data has the agent serve the shared filesystem on the pod's loopback, until
// nobody has asked for anything for a while.
type Data struct {
	Port     int           `json:"port"`
	TokenSum string        `json:"tokenSum"` // see datafs.TokenSum
	Idle     time.Duration `json:"idle"`
}

// DFS is where a container has the filesystem that it shares with others.
type DFS struct {
	Path     string         `json:"path"`
	ReadOnly bool           `json:"readOnly,omitempty"`
	KeepWork berth.KeepWork `json:"keepWork,omitempty"`
}

// Files is the registry through which the calls of a workflow hand files to
// each other that share no filesystem; see package blobs.
type Files struct {
	URL   string `json:"url"`
	User  string `json:"user"`
	Token string `json:"token"`        // of this attempt alone
	CA    string `json:"ca,omitempty"` // PEM; empty: the system's
}

// Message is how the agent leaves its report with the container.
type Message struct {
	Path  string `json:"path"`
	Limit int    `json:"limit"` // bytes; what doesn't fit goes to the end of the log in frames. 0: no limit
}

// Callback is where the agent reports to while it runs.
type Callback struct {
	URL       string        `json:"url"`
	Token     string        `json:"token"`        // of this attempt alone
	CA        string        `json:"ca,omitempty"` // PEM; empty: the system's
	Heartbeat time.Duration `json:"heartbeat"`
}

const (
	orderVar  = "BERTH_ORDER_" // followed by a number from 0 on
	orderSize = 96 << 10       // of one variable: Linux takes 128 KiB
)

// MaxOrder bounds an encoded order: with the rest of a pod it has to fit into
// etcd and into what Linux hands a program.
const MaxOrder = 768 << 10

// Env encodes the order as environment variables of the agent's process.
func (o *Order) Env() ([]berth.EnvVar, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxOrder {
		return nil, berth.Errorf(berth.CodeInvalid, "steps or arguments take %d bytes; at most %d fit into a pod: put large data into files", len(data), MaxOrder)
	}
	var vars []berth.EnvVar
	for i := 0; len(data) > 0; i++ {
		n := min(orderSize, len(data))
		vars = append(vars, berth.EnvVar{Name: orderVar + strconv.Itoa(i), Value: string(data[:n])})
		data = data[n:]
	}
	return vars, nil
}

// ReadOrder takes the order out of an environment ("K=V" each) and returns
// what is left for the program.
func ReadOrder(environ []string) (*Order, []string, error) {
	pieces := map[int]string{}
	var rest []string
	for _, pair := range environ {
		if number, value, ok := strings.Cut(strings.TrimPrefix(pair, orderVar), "="); ok && strings.HasPrefix(pair, orderVar) {
			if i, err := strconv.Atoi(number); err == nil {
				pieces[i] = value
				continue
			}
		}
		rest = append(rest, pair)
	}
	var numbers []int
	for i := range pieces {
		numbers = append(numbers, i)
	}
	sort.Ints(numbers)
	var text strings.Builder
	for at, i := range numbers {
		if i != at {
			return nil, nil, fmt.Errorf("the order is incomplete: %s%d is missing", orderVar, at)
		}
		text.WriteString(pieces[i])
	}
	if text.Len() == 0 {
		return nil, nil, fmt.Errorf("there is no order in the environment (%s0): berthlet is started by Berth", orderVar)
	}
	var o Order
	if err := json.Unmarshal([]byte(text.String()), &o); err != nil {
		return nil, nil, fmt.Errorf("the order can't be read: %w", err)
	}
	if o.Version > Version {
		return nil, nil, fmt.Errorf("the order is of version %d and this agent knows %d: build the package again with this Berth", o.Version, Version)
	}
	return &o, rest, nil
}

// Keys derives what belongs to one attempt from a secret of the store, so that
// nothing has to be kept for it and a second process derives the same.
type Keys []byte

// Token authenticates the agent of an attempt's pod.
func (k Keys) Token(task, pod string) string { return k.derive("token", task, pod) }

// Nonce marks the frames in a pod's log.
func (k Keys) Nonce(pod string) string { return k.derive("nonce", pod)[:24] }

func (k Keys) derive(parts ...string) string {
	mac := hmac.New(sha256.New, k)
	for _, part := range parts {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// PullToken lets the nodes of an infrastructure pull from Berth's own registry,
// and nothing else.
func (k Keys) PullToken(infrastructure string) string { return k.derive("pull", infrastructure) }

// ValidPull reports whether a token is the one of an infrastructure's nodes.
func (k Keys) ValidPull(token, infrastructure string) bool {
	return hmac.Equal([]byte(token), []byte(k.PullToken(infrastructure)))
}

// HeadToken lets the head of a compute cluster open connections for its clients.
func (k Keys) HeadToken(cluster string) string { return k.derive("head", cluster) }

// ValidHead reports whether a token is the one of a cluster's head.
func (k Keys) ValidHead(token, cluster string) bool {
	return hmac.Equal([]byte(token), []byte(k.HeadToken(cluster)))
}

// DataToken is what the server of a shared filesystem, whose seed is in its
// task, is asked with.
func (k Keys) DataToken(seed string) string { return k.derive("data", seed) }

// DFSKey tells one shared filesystem from another without telling its password.
func (k Keys) DFSKey(dfs string) string { return k.derive("dfs", dfs)[:32] }

// Valid reports whether a token is the one of an attempt's pod, in a time that
// tells nothing about it.
func (k Keys) Valid(token, task, pod string) bool {
	return hmac.Equal([]byte(token), []byte(k.Token(task, pod)))
}
