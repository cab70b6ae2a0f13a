// Package bucket is an object store over the network: a bucket of S3, or of
// what speaks its protocol. It says what is wrong with a bucket in a sentence
// that a person can act on.
package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/objects"
)

// Bucket is a bucket, or what is below a prefix in it.
type Bucket struct {
	bucket  *blob.Bucket
	address Address
}

var _ objects.Store = (*Bucket)(nil)

// probeLimit bounds how long a bucket may take to answer at first.
const probeLimit = 30 * time.Second

// Open opens a bucket, and stores, reads and deletes an object in it: what
// doesn't work is better known at once. Credentials are those that the AWS SDK
// finds: of the environment, of the shared files, of the machine's role.
func Open(ctx context.Context, url string) (*Bucket, error) {
	address, err := Parse(url)
	if err != nil {
		return nil, err
	}
	b, err := open(ctx, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := b.probe(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func open(ctx context.Context, address Address) (*Bucket, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = 30 * time.Second // of a server that is connected and silent
		t.MaxIdleConnsPerHost = 32
	}).WithDialerOptions(func(d *net.Dialer) { d.Timeout = 5 * time.Second })
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(client), config.WithLogger(logging.Nop{})}
	if address.Region != "" {
		options = append(options, config.WithRegion(address.Region))
	}
	if address.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(address.Profile))
	}
	if address.CA != "" {
		file, err := os.Open(address.CA)
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "--storage: cannot read the file of ca=: %w", err)
		}
		defer file.Close()
		options = append(options, config.WithCustomCABundle(file))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "--storage: the settings for AWS (environment, ~/.aws/config, ~/.aws/credentials) can't be used: %w", err)
	}
	if c.Region == "" {
		if address.Endpoint == "" {
			return nil, berth.Errorf(berth.CodeInvalid, "--storage: in which region is the bucket %s? Say it with s3://%s?region=REGION, or with AWS_REGION", address.Name, address.Name)
		}
		c.Region = "us-east-1" // what other servers take anything for
	}
	address.Region = c.Region
	checksums := aws.RequestChecksumCalculationWhenSupported
	s3Client := s3.NewFromConfig(c, func(o *s3.Options) {
		if address.Endpoint != "" {
			// Not all that speak the protocol know the newer checksums, or have a
			// name in the DNS for each bucket.
			o.BaseEndpoint, o.UsePathStyle = &address.Endpoint, true
			checksums = aws.RequestChecksumCalculationWhenRequired
			o.RequestChecksumCalculation, o.ResponseChecksumValidation = checksums, aws.ResponseChecksumValidationWhenRequired
		}
	})
	opened, err := s3blob.OpenBucket(ctx, s3Client, address.Name, &s3blob.Options{RequestChecksumCalculation: checksums})
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "--storage: %w", err)
	}
	return &Bucket{bucket: opened, address: address}, nil
}

// probe does once all that is done later.
func (b *Bucket) probe(ctx context.Context) error {
	key := "probe/" + rand.Text()
	if err := b.Put(ctx, key, strings.NewReader("berth")); err != nil {
		return fmt.Errorf("--storage: to store an object: %w", err)
	}
	data, _, err := b.Get(ctx, key)
	if err == nil && string(data) != "berth" {
		err = berth.Errorf(berth.CodeInternal, "%s gave something else than was stored", b.address)
	}
	if err != nil {
		return fmt.Errorf("--storage: to read an object: %w", err)
	}
	for _, err := range b.List(ctx, "probe/", false) {
		if err != nil {
			return fmt.Errorf("--storage: to list objects: %w", err)
		}
	}
	if err := b.Delete(ctx, key); err != nil {
		return fmt.Errorf("--storage: to delete an object: %w", err)
	}
	return nil
}

// Encrypted reports whether what is stored travels encrypted.
func (b *Bucket) Encrypted() bool { return b.address.Encrypted() }

// Close lets go of connections.
func (b *Bucket) Close() error { return b.bucket.Close() }

// String is the bucket's address without anything that is a secret.
func (b *Bucket) String() string { return b.address.String() }

func (b *Bucket) Get(ctx context.Context, key string) ([]byte, objects.Object, error) {
	r, err := b.bucket.NewReader(ctx, b.address.Prefix+key, nil)
	if err != nil {
		return nil, objects.Object{}, b.explain(key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return data, objects.Object{Key: key, Size: r.Size(), Modified: r.ModTime()}, b.explain(key, err)
}

func (b *Bucket) Range(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := b.bucket.NewRangeReader(ctx, b.address.Prefix+key, offset, length, nil)
	if err != nil {
		return nil, b.explain(key, err)
	}
	return reading{r, b, key}, nil
}

// reading is an object that is read, with errors that a person can act on.
type reading struct {
	*blob.Reader
	bucket *Bucket
	key    string
}

func (r reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.bucket.explain(r.key, err)
	}
	return n, err
}

func (b *Bucket) Put(ctx context.Context, key string, content io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := &breaking{Reader: content}
	err := b.bucket.Upload(ctx, b.address.Prefix+key, broken.reader(), &blob.WriterOptions{ContentType: "application/octet-stream", MaxConcurrency: 2})
	if broken.err != nil {
		return broken.err
	}
	return b.explain(key, err)
}

// breaking keeps the error of what is read, which is not the bucket's.
type breaking struct {
	io.Reader
	err error
}

// reader is one that can seek where the content can: what is sent again after a
// failure is read again.
func (r *breaking) reader() io.Reader {
	if _, ok := r.Reader.(io.Seeker); ok {
		return r.Reader
	}
	return r
}

func (r *breaking) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (b *Bucket) Stat(ctx context.Context, key string) (objects.Object, error) {
	a, err := b.bucket.Attributes(ctx, b.address.Prefix+key)
	if err != nil {
		return objects.Object{}, b.explain(key, err)
	}
	return objects.Object{Key: key, Size: a.Size, Modified: a.ModTime}, nil
}

func (b *Bucket) List(ctx context.Context, prefix string, folders bool) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		o := &blob.ListOptions{Prefix: b.address.Prefix + prefix}
		if folders {
			o.Delimiter = "/"
		}
		for i := b.bucket.List(o); ; {
			found, err := i.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(objects.Object{}, b.explain(prefix, err))
				return
			}
			if !yield(objects.Object{Key: strings.TrimPrefix(found.Key, b.address.Prefix), Size: found.Size, Modified: found.ModTime, Folder: found.IsDir}, nil) {
				return
			}
		}
	}
}

func (b *Bucket) Delete(ctx context.Context, key string) error {
	err := b.explain(key, b.bucket.Delete(ctx, b.address.Prefix+key))
	if isNotExist(err) {
		return nil
	}
	return err
}
