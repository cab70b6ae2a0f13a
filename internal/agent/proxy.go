package agent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth"
)

// What the containers of a pod with a proxy agree upon.
const (
	// ProxyUID is the user, and the group, of the sidecar: the rules let nobody
	// else reach the proxy itself.
	ProxyUID = 64646

	ProxyPort      = 21080 // what connects anywhere is redirected to here, on 127.0.0.1
	ProxyLocalPort = 21081 // HTTP and SOCKS5, for programs that heed HTTP_PROXY
	ProxyDNSPort   = 21053 // what asks a resolver is redirected to here

	// ProxyDir is shared by the two containers of the proxy alone.
	ProxyDir     = "/berth-proxy"
	proxyMessage = "/dev/termination-log"

	// ProxyNameless is the exit code of the container that makes the rules, where
	// the proxy's name does not resolve (EX_NOHOST of sysexits.h).
	ProxyNameless = 68

	// ProxyTrouble begins what the containers say when the proxy can't be used.
	ProxyTrouble = "proxy trouble"
)

const (
	proxyVar         = "BERTH_PROXY"
	ProxyUserVar     = "BERTH_PROXY_USER"     // of the Secret, where infra.yml gives a login
	ProxyPasswordVar = "BERTH_PROXY_PASSWORD" // likewise
)

// Proxy is the order of the containers that send a pod's traffic through a proxy.
type Proxy struct {
	Protocol string              `json:"protocol"` // of berth.Proxy
	Address  string              `json:"address"`  // HOST:PORT
	Bypass   []berth.ProxyBypass `json:"bypass,omitempty"`
	As       string              `json:"as"` // who to be where a SOCKS5 proxy asks, and there is no login

	Dir string `json:"dir,omitempty"` // instead of ProxyDir, where no kubelet is; tests and benchmarks

	Login *ProxyLogin `json:"-"`
}

// ProxyLogin is a user and a password of a proxy.
type ProxyLogin struct {
	User     string
	Password berth.Secret
}

// Env is the order as a variable of the containers' environment.
func (p *Proxy) Env() (berth.EnvVar, error) {
	data, err := json.Marshal(p)
	return berth.EnvVar{Name: proxyVar, Value: string(data)}, err
}

// File is one of those that the containers of the proxy share.
func (p *Proxy) File(name string) string { return filepath.Join(cmp.Or(p.Dir, ProxyDir), name) }

// MessageFile is where a container leaves its termination message.
func (p *Proxy) MessageFile() string {
	if p.Dir != "" {
		return p.File("message")
	}
	return proxyMessage
}

// ReadProxy reads the order from the environment.
func ReadProxy(getenv func(string) string) (*Proxy, error) {
	p := &Proxy{}
	if err := json.Unmarshal([]byte(getenv(proxyVar)), p); err != nil {
		return nil, fmt.Errorf("%s holds no order: %w", proxyVar, err)
	}
	if user := getenv(ProxyUserVar); user != "" {
		p.Login = &ProxyLogin{User: user, Password: berth.Secret(getenv(ProxyPasswordVar))}
	}
	return p, nil
}

// ProxyReport is what the sidecar leaves as its termination message: what went
// through the proxy since the pod began, and what is wrong with it.
type ProxyReport struct {
	SentBytes     int64  `json:"sentBytes"`
	ReceivedBytes int64  `json:"receivedBytes"`
	Connections   int64  `json:"connections"`
	Trouble       string `json:"trouble,omitempty"`  // at the end
	Troubles      int64  `json:"troubles,omitempty"` // how often it began
}

const reportMark = "berth-proxy "

// Encode writes the report as a message.
func (r *ProxyReport) Encode() []byte {
	data, _ := json.Marshal(r)
	return append([]byte(reportMark), data...)
}

// DecodeProxyReport reads a message of the sidecar; nil where it is none.
func DecodeProxyReport(message string) *ProxyReport {
	rest, ok := strings.CutPrefix(message, reportMark)
	r := &ProxyReport{}
	if !ok || json.Unmarshal([]byte(rest), r) != nil || r.SentBytes < 0 || r.ReceivedBytes < 0 || r.Connections < 0 {
		return nil
	}
	return r
}
