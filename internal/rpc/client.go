package rpc

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

// Client is a Service that is served elsewhere.
type Client struct {
	rpc   berthv1connect.BerthServiceClient
	http  *http.Client
	url   *url.URL
	token string

	upgradeOnce sync.Once
	upgrade     http.RoundTripper // by which connections to clusters are made
}

var _ berth.Service = (*Client)(nil)

// NewClient returns a client of the Service at a URL. The token is sent as a
// bearer token; none is when it is empty.
func NewClient(httpClient *http.Client, address, token string) *Client {
	var options []connect.ClientOption
	if token != "" {
		options = append(options, connect.WithInterceptors(bearer(token)))
	}
	parsed, err := url.Parse(address)
	if err != nil {
		parsed = &url.URL{} // its callers have looked at it
	}
	return &Client{rpc: berthv1connect.NewBerthServiceClient(httpClient, address, options...), http: httpClient, url: parsed, token: token}
}

// RoundTrip sends a request of the registry protocol to the server, whatever
// host it names: a Client is the transport of images.Local.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	request := r.Clone(r.Context())
	request.URL.Scheme, request.URL.Host, request.Host = c.url.Scheme, c.url.Host, ""
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	transport := c.http.Transport
	if checked, ok := transport.(checking); ok {
		transport = checked.next // a registry answers in its own ways
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		if known := transportError(err); known != nil {
			err = known
		}
	}
	return response, err
}

// Close lets go of the connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	if t, ok := c.upgrading().(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return nil
}

func call[Q, A, T any](ctx context.Context, fn func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), request *Q, convert func(*A) T) (T, error) {
	response, err := fn(ctx, connect.NewRequest(request))
	if err != nil {
		var none T
		return none, fromWire(ctx, err)
	}
	return convert(response.Msg), nil
}

func (c *Client) Info(ctx context.Context) (berth.Info, error) {
	return call(ctx, c.rpc.Info, &pb.InfoRequest{}, func(m *pb.InfoResponse) berth.Info {
		return berth.Info{Version: m.GetVersion(), Instance: m.GetInstance(), DataDir: m.GetDataDir(), PID: int(m.GetPid())}
	})
}

func (c *Client) SubmitTask(ctx context.Context, s berth.Submission) (berth.Task, error) {
	return call(ctx, c.rpc.SubmitTask, &pb.SubmitTaskRequest{Key: s.Key, Spec: fromSpec(&s.Spec), NoPreflight: s.NoPreflight}, func(m *pb.SubmitTaskResponse) berth.Task { return toTask(m.GetTask()) })
}

func (c *Client) Task(ctx context.Context, id string) (berth.Task, error) {
	return call(ctx, c.rpc.GetTask, &pb.GetTaskRequest{Id: id}, func(m *pb.GetTaskResponse) berth.Task { return toTask(m.GetTask()) })
}

func (c *Client) Tasks(ctx context.Context, q berth.TaskQuery) (berth.TaskPage, error) {
	request := &pb.ListTasksRequest{Infrastructure: q.Infrastructure, Name: q.Name, Labels: q.Labels, Owner: q.Owner, Limit: int32(q.Limit), After: q.After, Array: q.Array}
	for _, state := range q.States {
		request.States = append(request.States, string(state))
	}
	return call(ctx, c.rpc.ListTasks, request, func(m *pb.ListTasksResponse) berth.TaskPage {
		page := berth.TaskPage{Tasks: []berth.Task{}, Next: m.GetNext()}
		for _, t := range m.GetTasks() {
			page.Tasks = append(page.Tasks, toTask(t))
		}
		return page
	})
}

// receive yields what a stream gives until it ends or fails.
func receive[Q, A, T any](ctx context.Context, fn func(context.Context, *connect.Request[Q]) (*connect.ServerStreamForClient[A], error), request *Q, convert func(*A) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := fn(ctx, connect.NewRequest(request))
		if err != nil {
			yield(none, fromWire(ctx, err))
			return
		}
		defer stream.Close()
		for stream.Receive() {
			if !yield(convert(stream.Msg()), nil) {
				return
			}
		}
		if err := stream.Err(); err != nil {
			yield(none, fromWire(ctx, err))
		}
	}
}

func (c *Client) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return receive(ctx, c.rpc.WatchTask, &pb.WatchTaskRequest{Id: id}, func(m *pb.WatchTaskResponse) berth.Task { return toTask(m.GetTask()) })
}

func (c *Client) TaskEvents(ctx context.Context, id string, after int64, follow bool) iter.Seq2[berth.Event, error] {
	return receive(ctx, c.rpc.TaskEvents, &pb.TaskEventsRequest{Id: id, After: after, Follow: follow}, func(m *pb.TaskEventsResponse) berth.Event { return toEvent(m.GetEvent()) })
}

func (c *Client) TaskLogs(ctx context.Context, id string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	request := &pb.TaskLogsRequest{Id: id, Attempt: int32(q.Attempt), Offset: q.Offset, Follow: q.Follow, Tail: int32(q.Tail), Since: fromTime(q.Since), Timestamps: q.Timestamps, Step: int32(q.Step), Stream: string(q.Stream), Grep: q.Grep}
	return receive(ctx, c.rpc.TaskLogs, request, func(m *pb.TaskLogsResponse) berth.LogChunk {
		return berth.LogChunk{Attempt: int(m.GetAttempt()), Data: m.GetData(), Offset: m.GetOffset(), Gap: m.GetGap(), Stream: berth.LogStream(m.GetStream())}
	})
}

func (c *Client) TaskMetrics(ctx context.Context, id string, q berth.MetricsQuery) (berth.TaskMetrics, error) {
	return call(ctx, c.rpc.GetTaskMetrics, &pb.GetTaskMetricsRequest{Id: id, Attempt: int32(q.Attempt)}, toMetrics)
}

func (c *Client) CancelTask(ctx context.Context, id string) (berth.Task, error) {
	return call(ctx, c.rpc.CancelTask, &pb.CancelTaskRequest{Id: id}, func(m *pb.CancelTaskResponse) berth.Task { return toTask(m.GetTask()) })
}

func (c *Client) Package(ctx context.Context, infrastructure, name, version string) (berth.Package, error) {
	data, err := call(ctx, c.rpc.GetPackage, &pb.GetPackageRequest{Infrastructure: infrastructure, Name: name, Version: version}, func(m *pb.GetPackageResponse) []byte { return m.GetPackage() })
	var pkg berth.Package
	if err == nil {
		err = json.Unmarshal(data, &pkg)
	}
	return pkg, err
}

func (c *Client) Infrastructures(ctx context.Context) ([]berth.Infrastructure, error) {
	return call(ctx, c.rpc.ListInfrastructures, &pb.ListInfrastructuresRequest{}, func(m *pb.ListInfrastructuresResponse) []berth.Infrastructure {
		list := []berth.Infrastructure{}
		for _, i := range m.GetInfrastructures() {
			list = append(list, toInfrastructure(i))
		}
		return list
	})
}

func (c *Client) CheckInfrastructure(ctx context.Context, name string) (berth.InfrastructureCheck, error) {
	return call(ctx, c.rpc.CheckInfrastructure, &pb.CheckInfrastructureRequest{Name: name}, toCheck)
}

func (c *Client) AddInfrastructure(ctx context.Context, s berth.InfrastructureSource) error {
	_, err := call(ctx, c.rpc.AddInfrastructure, &pb.AddInfrastructureRequest{Name: s.Name, Kubeconfig: s.Kubeconfig, Content: s.Content.Reveal(), Context: s.Context, Namespace: s.Namespace, Kind: s.Kind, Address: s.Address}, func(*pb.AddInfrastructureResponse) struct{} { return struct{}{} })
	return err
}

func (c *Client) FormatDFS(ctx context.Context, f berth.DFSFormat) (berth.DFSVolume, error) {
	request := &pb.FormatDFSRequest{
		Infrastructure: f.Infrastructure, Volume: f.Volume, Storage: f.Storage, Bucket: f.Bucket,
		AccessKey: f.AccessKey, SecretKey: f.SecretKey.Reveal(), Capacity: string(f.Capacity), Inodes: f.Inodes,
	}
	return call(ctx, c.rpc.FormatDFS, request, func(r *pb.FormatDFSResponse) berth.DFSVolume {
		return berth.DFSVolume{Infrastructure: r.GetInfrastructure(), Name: r.GetName(), Address: r.GetAddress(), Storage: r.GetStorage(), Bucket: r.GetBucket()}
	})
}

func (c *Client) RemoveInfrastructure(ctx context.Context, name string, force bool) error {
	_, err := call(ctx, c.rpc.RemoveInfrastructure, &pb.RemoveInfrastructureRequest{Name: name, Force: force}, func(*pb.RemoveInfrastructureResponse) struct{} { return struct{}{} })
	return err
}

func (c *Client) CreateToken(ctx context.Context, r berth.TokenRequest) (berth.Token, error) {
	request := &pb.CreateTokenRequest{Key: r.Key, Name: r.Name, Role: string(r.Role), Infrastructures: r.Infrastructures, Ttl: durationpb.New(r.TTL)}
	return call(ctx, c.rpc.CreateToken, request, func(m *pb.CreateTokenResponse) berth.Token {
		token := toToken(m.GetToken())
		token.Secret = berth.Secret(m.GetSecret())
		return token
	})
}

func (c *Client) Tokens(ctx context.Context) ([]berth.Token, error) {
	return call(ctx, c.rpc.ListTokens, &pb.ListTokensRequest{}, func(m *pb.ListTokensResponse) []berth.Token {
		tokens := []berth.Token{}
		for _, t := range m.GetTokens() {
			tokens = append(tokens, toToken(t))
		}
		return tokens
	})
}

func (c *Client) RevokeToken(ctx context.Context, idOrName string) error {
	_, err := call(ctx, c.rpc.RevokeToken, &pb.RevokeTokenRequest{IdOrName: idOrName}, func(*pb.RevokeTokenResponse) struct{} { return struct{}{} })
	return err
}

// bearer sends a token with every call.
type bearer string

func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		r.Header().Set("Authorization", "Bearer "+string(b))
		return next(ctx, r)
	}
}

func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		conn.RequestHeader().Set("Authorization", "Bearer "+string(b))
		return conn
	}
}

func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
