package diagnosis

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// What registries and container runtimes say; containerd, CRI-O and docker
// word it differently. LOCALKUBE.md and the fixtures have the whole texts.
var (
	imageNameInvalid  = regexp.MustCompile(`(?i)invalid reference format|couldn't parse image (?:name|reference)|failed to apply default image tag`)
	imageOtherCPU     = regexp.MustCompile(`(?i)no match for platform|no matching manifest for |does not match the specified platform|no image found in (?:image index|manifest list) for architecture`)
	imageRateLimited  = regexp.MustCompile(`(?i)toomanyrequests|429 Too Many Requests|pull rate limit`)
	imageUnreachable  = regexp.MustCompile(`(?i)dial tcp|dial udp|no such host|i/o timeout|connection refused|connection reset|no route to host|network is unreachable|tls:|x509:|TLS handshake|gave HTTP response to HTTPS client|\b50[0-9] |deadline exceeded|unexpected EOF|registry is unavailable|Client\.Timeout`)
	imageUnauthorized = regexp.MustCompile(`(?i)401 Unauthorized|403 Forbidden|unauthorized|authentication required|insufficient_scope|denied:|is denied|access denied|authorization failed|no basic auth credentials`)
	imageNotFound     = regexp.MustCompile(`(?i): not found\s*$|manifest unknown|name unknown|name_unknown|manifest for .* not found|404 Not Found|code = NotFound|repository .*not found`)
	pullDetail        = regexp.MustCompile(`(?s)^Back-off pulling image "[^"]*"\s*$`)
	pullSecretsUnread = regexp.MustCompile(`(?i)^Unable to retrieve some image pull secrets \(([^)]+)\)`)
	registryHost      = regexp.MustCompile(`(?:https?://|pulling from host |lookup )([A-Za-z0-9.\-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)`)
)

var pullReasons = []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed", "ErrImageNeverPull"}

// pull is a failing pull of an image.
type pull struct {
	stuck
	text     string // the runtime's own words; empty when they are nowhere to be seen
	evidence []berth.Evidence
}

// pulling returns what is known of a failing pull, nil when there is none.
func (f *podFacts) pulling() *pull {
	s, ok := f.waiting(pullReasons...)
	if !ok {
		return nil
	}
	p := &pull{stuck: s, text: s.message, evidence: []berth.Evidence{s.evidence()}}
	if s.message != "" && !pullDetail.MatchString(s.message) {
		return p
	}
	// Kubelets before 1.32 keep the registry's words for the event alone.
	p.text = ""
	if e, ok := f.pullFailed(s.image); ok {
		p.text, p.evidence = e.message, append(p.evidence, e.evidence())
	}
	return p
}

// pullFailed returns the newest event of a pull of an image that failed.
func (f *podFacts) pullFailed(image string) (event, bool) {
	for _, e := range f.events {
		if e.reason == "Failed" && strings.HasPrefix(e.message, "Failed to pull image") && strings.Contains(e.message, image) {
			return e, true
		}
	}
	return event{}, false
}

// nameless is the text without the image's name, which may be anything: there
// could be an image named x509:1.
func (p *pull) nameless() string {
	text := p.text
	for _, name := range []string{p.image, p.image[strings.LastIndexByte(p.image, '/')+1:]} {
		if strings.Contains(name, ":") {
			text = strings.ReplaceAll(text, name, "IMAGE")
		}
	}
	return text
}

func (p *pull) hit() *hit {
	h := &hit{words: map[string]string{"image": p.image, "registry": registryOf(p.image), "why": pullWhy(p.text)}, evidence: p.evidence}
	if host := registryHost.FindStringSubmatch(strings.ReplaceAll(p.text, `\"`, `"`)); host != nil {
		h.words["registry"] = host[1]
	}
	return h
}

// pulls makes the matcher of what a registry says, or of a waiting reason.
func pulls(pattern *regexp.Regexp, reasons ...string) func(*podFacts) *hit {
	return func(f *podFacts) *hit {
		p := f.pull
		if p == nil {
			return nil
		}
		for _, reason := range reasons {
			if p.reason == reason {
				return p.hit()
			}
		}
		if pattern != nil && p.text != "" && pattern.MatchString(p.nameless()) {
			return p.hit()
		}
		return nil
	}
}

// PullSecretPrefix begins the names of the Secrets by which Berth's pods log in
// to registries.
const PullSecretPrefix = "berth-registry-"

// withoutLogin makes the matcher of a pull that a registry refuses as the node
// could not read the pod's pull Secrets, which Berth has made, or which others
// name. Nodes try a pull again after 10 s or more: what they said within that
// time is of the last one.
func withoutLogin(own bool) func(*podFacts) *hit {
	refused := pulls(imageUnauthorized)
	return func(f *podFacts) *hit {
		h := refused(f)
		if h == nil {
			return nil
		}
		e, ok := f.newest("FailedToRetrieveImagePullSecret")
		names := pullSecretsUnread.FindStringSubmatch(e.message)
		if failed, _ := f.pullFailed(f.pull.image); !ok || names == nil || !failed.at.Before(e.at.Add(10*time.Second)) {
			return nil
		}
		others := slices.DeleteFunc(strings.Split(names[1], ", "), func(name string) bool { return strings.HasPrefix(name, PullSecretPrefix) })
		if own != (len(others) == 0) {
			return nil
		}
		h.words["secrets"] = strings.Join(others, ", ")
		h.evidence = append(h.evidence, e.evidence())
		return h
	}
}

// registryOf returns the host that an image name is pulled from, by docker's
// rule: the part before the first slash, if it looks like a host.
func registryOf(image string) string {
	host, _, found := strings.Cut(image, "/")
	if found && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return host
	}
	return "docker.io"
}

// pullWhy says in a few words why a registry can't be used.
func pullWhy(text string) string {
	for _, known := range []struct{ has, say string }{
		{"gave HTTP response to HTTPS client", "it speaks plain HTTP where the node expects HTTPS"},
		{"certificate signed by unknown authority", "the node does not trust its TLS certificate"},
		{"certificate has expired", "its TLS certificate has expired"},
		{"x509:", "its TLS certificate is not valid for that name"},
		{"no such host", "its name is not known to the node's DNS"},
		{"lookup ", "the node's DNS does not answer for its name"},
		{"connection refused", "it refused the connection"},
		{"i/o timeout", "it does not answer"},
		{"deadline exceeded", "it does not answer in time"},
		{"TLS handshake timeout", "it does not answer in time"},
		{"no route to host", "the node has no route to it"},
		{"network is unreachable", "the node has no route to it"},
		{"connection reset", "the connection was cut"},
		{"toomanyrequests", "it allows no more pulls for now"},
		{"429 ", "it allows no more pulls for now"},
		{"500 ", "it has an error of its own"},
		{"502 ", "it has an error of its own"},
		{"503 ", "it has an error of its own"},
		{"504 ", "it has an error of its own"},
		{"no space left", "the node's disk is full"},
	} {
		if strings.Contains(text, known.has) {
			return known.say
		}
	}
	return "the pull failed"
}

var imageRows = []row{
	{
		cause: berth.CauseInvalidImageName, rank: 300, onPod: pulls(imageNameInvalid, "InvalidImageName"), patience: berth.PatienceNone,
		means:   "The image's name can't be a name of an image.",
		summary: "{image} is not a valid name of an image.",
		remedy:  "correct the name: lower-case letters and digits, as in docker.io/library/busybox:1.35",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseImageNeverPull, rank: 305, patience: berth.PatienceNone,
		onPod: func(f *podFacts) *hit {
			if f.pull == nil || f.pull.reason != "ErrImageNeverPull" || !berth.ImageIsLoaded(f.pull.image) {
				return nil
			}
			h := f.pull.hit()
			h.words["package"], _, _ = strings.Cut(strings.TrimPrefix(f.pull.image, berth.LoadedRegistry+"/"), "@")
			return h
		},
		means:   "The infrastructure has no registry, and the package was not loaded onto the node.",
		summary: "The node does not have package {package}, and infrastructure {infrastructure} has no registry to pull it from.",
		remedy:  "load it: berth package load {package} --into localkube, or kind; or set registry: of {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseImageNeverPull, rank: 310, onPod: pulls(nil, "ErrImageNeverPull"), patience: berth.PatienceNone,
		means:   "The task says never to pull its image, and the node doesn't have it.",
		summary: "The node does not have image {image}, and --pull never forbids fetching it.",
		remedy:  "leave --pull never away, or have the image loaded onto the nodes",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseArchitectureMismatch, rank: 320, onPod: pulls(imageOtherCPU), patience: berth.PatiencePull,
		means:   "The image exists, but not for the kind of processor that the node has.",
		summary: "Image {image} is not built for the kind of processor that {node} has.",
		remedy:  "build the image for that processor too (docker buildx build --platform linux/amd64,linux/arm64), or choose nodes with pod: node_selector in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRegistryUnreachable, rank: 330, onPod: pulls(imageRateLimited), infrastructure: true,
		means:   "The registry allows no more pulls for a while (docker.io counts them by address and login).",
		summary: "Registry {registry} allows no more pulls for now, so image {image} is not there yet.",
		remedy:  "wait, or pull with a login (pod: image_pull_secrets in infra.yml), or use a copy in a registry of your own",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRegistryUnreachable, rank: 340, onPod: pulls(imageUnreachable, "RegistryUnavailable"), infrastructure: true,
		means:   "The node can't talk to the registry: network, DNS, TLS, or the registry is down.",
		summary: "The node cannot fetch image {image} from registry {registry}: {why}.",
		remedy:  "check the registry's name in the image; if it is right, the nodes' way to the registry or their trust in its certificate has to be mended",
		by:      berth.RemedyByEngineer,
	},
	{
		// A node may read the Secrets of its own pods, and the API server may learn
		// a moment after the node that this one is.
		cause: berth.CauseImageUnauthorized, rank: 346, onPod: withoutLogin(true), patience: berth.PatienceStart,
		means:   "The node could not look up the login that Berth gave the pod in time, and asked the registry without. It tries again after ten seconds or more.",
		summary: "{the_node} could not look up the login to registry {registry} in time, asked for image {image} without, and tries again.",
		remedy:  "wait a moment; if it stays, have it checked what the node's kubelet says of it",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseImageUnauthorized, rank: 348, onPod: withoutLogin(false), patience: berth.PatiencePull,
		means:   "The registry doesn't give the image without a login, and the node can't read a pull Secret that the pod names.",
		summary: "Registry {registry} does not give image {image} without a login, and {node} cannot read pull Secret {secrets} of namespace {namespace}.",
		remedy:  "create Secret {secrets} in namespace {namespace}, or correct its name in pod: image_pull_secrets of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseImageUnauthorized, rank: 350, onPod: pulls(imageUnauthorized), patience: berth.PatiencePull,
		means:   "The registry doesn't give the image without a login. Some registries say the same of an image that doesn't exist.",
		summary: "Registry {registry} does not give image {image} without a login that may read it, or there is no such image.",
		remedy:  "check the name {image}; if it is private, name a pull Secret in pod: image_pull_secrets of infrastructure {infrastructure} in infra.yml",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseImageNotFound, rank: 360, onPod: pulls(imageNotFound), patience: berth.PatiencePull,
		means:   "The registry has no image of that name and tag.",
		summary: "Registry {registry} has no image {image}.",
		remedy:  "check the name and tag: {image}",
		by:      berth.RemedyByUser,
	},
	{
		cause: berth.CauseRegistryUnreachable, rank: 370, infrastructure: true,
		onPod: func(f *podFacts) *hit {
			if p := f.pull; p != nil && p.text != "" {
				return p.hit()
			}
			return nil
		},
		means:   "The pull fails for a reason that is not in this table.",
		summary: "The node cannot fetch image {image} from registry {registry}: {why}.",
		remedy:  "read the evidence, which has the node's own words, or show it to the cluster's engineer",
		by:      berth.RemedyByEngineer,
	},
	{
		cause: berth.CauseUnknown, rank: 380,
		onPod: func(f *podFacts) *hit {
			if p := f.pull; p != nil && p.text == "" {
				return p.hit()
			}
			return nil
		},
		means:   "The pull fails, and the registry's answer is only in events, which could not be seen (Kubernetes before 1.32).",
		summary: "The node cannot fetch image {image}, and why is only in the cluster's events, where it was not found.",
		remedy:  "check the name and tag: {image}; berth infra check {infrastructure} says whether events may be read",
		by:      berth.RemedyByUser,
	},
}
