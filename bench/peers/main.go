// Command peer takes votes over REST and gRPC and puts them on Kafka. It is the program that a user would write in Go instead of using
// Ovation's producers, and bench/producers compares the producers with it.
//
// The peer uses Fiber for REST, grpc-go for gRPC, and franz-go for Kafka. As the producers do, it waits for the acknowledgement of all in-sync
// replicas (acks=all), and answers a vote only when the broker has the record. Requests that arrive together share a request to the broker,
// but the client library does not wait for more of them (linger 0). All other options of franz-go have their defaults.
//
// The peer does much less than a producer: it checks only that a vote over REST is JSON with a name, and it does not check a vote over gRPC
// at all. It has no contests, voters, metrics or limits. So a comparison favours the peer.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

func main() {
	restAddress := flag.String("rest", "127.0.0.1:8000", "the address for votes over REST")
	grpcAddress := flag.String("grpc", "127.0.0.1:50051", "the address for votes over gRPC")
	brokers := flag.String("kafka", "127.0.0.1:9092", "the addresses of Kafka's brokers, separated by commas")
	topic := flag.String("topic", "peer-votes", "the topic of the votes, which has to exist")
	flag.Parse()

	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.DefaultProduceTopic(*topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		log.Fatal(err)
	}
	voteLog := voteLog{client}

	restServer := newRestServer(voteLog)
	go func() {
		if err := restServer.Listen(*restAddress); err != nil {
			log.Fatal(err)
		}
	}()

	grpcServer := newGrpcServer(voteLog)
	listener, err := net.Listen("tcp", *grpcAddress)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := grpcServer.Serve(listener); err != nil {
			log.Fatal(err)
		}
	}()

	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	<-signals.Done()
	if err := restServer.Shutdown(); err != nil {
		log.Print(err)
	}
	grpcServer.GracefulStop()
	client.Close()
}

// A voteLog puts votes on a topic of Kafka.
type voteLog struct {
	client *kgo.Client
}

// publish puts a record on the topic and waits until the broker has it. The record of a vote with an id has this id as its key. A vote without
// an id has no key (franz-go then puts consecutive records on the same partition, and changes the partition from time to time).
func (voteLog voteLog) publish(ctx context.Context, voteID string, value []byte) (*kgo.Record, error) {
	record := &kgo.Record{Value: value}
	if voteID != "" {
		record.Key = []byte(voteID)
	}
	return record, voteLog.client.ProduceSync(ctx, record).FirstErr()
}

// A vote is the body of a request over REST. Year and rank may be texts or numbers.
type vote struct {
	Name   string          `json:"name"`
	Album  string          `json:"album,omitempty"`
	Year   json.RawMessage `json:"year,omitempty"`
	Rank   json.RawMessage `json:"rank,omitempty"`
	VoteID string          `json:"vote_id,omitempty"`
}

// A receipt is the answer to a vote over REST. It has the fields of a producer's receipt.
type receipt struct {
	VoteID     string `json:"vote_id"`
	Contest    string `json:"contest"`
	Partition  int32  `json:"partition"`
	Offset     int64  `json:"offset"`
	AcceptedAt string `json:"accepted_at"`
}

// newRestServer returns a server that takes votes at POST /v1/votes. It answers 202 with a receipt, 422 if the body is not a vote, and 503 if
// the broker does not acknowledge the record. A vote without an id gets a UUIDv7, which is in the record and in the receipt.
func newRestServer(voteLog voteLog) *fiber.App {
	server := fiber.New(fiber.Config{DisableStartupMessage: true})
	server.Post("/v1/votes", func(request *fiber.Ctx) error {
		var vote vote
		if err := json.Unmarshal(request.Body(), &vote); err != nil || vote.Name == "" {
			return request.Status(fiber.StatusUnprocessableEntity).SendString("the body is not a vote")
		}
		clientID := vote.VoteID
		if clientID == "" {
			newID, err := uuid.NewV7()
			if err != nil {
				return err
			}
			vote.VoteID = newID.String()
		}
		value, err := json.Marshal(vote)
		if err != nil {
			return err
		}
		record, err := voteLog.publish(request.UserContext(), clientID, value)
		if err != nil {
			return request.Status(fiber.StatusServiceUnavailable).SendString(err.Error())
		}
		return request.Status(fiber.StatusAccepted).JSON(receipt{
			VoteID:     vote.VoteID,
			Contest:    "bands",
			Partition:  record.Partition,
			Offset:     record.Offset,
			AcceptedAt: record.Timestamp.UTC().Format(time.RFC3339Nano),
		})
	})
	return server
}

// newGrpcServer returns a server with the method CastVote of ovation.v1.VoteService. The value of the record is the request as it arrived. The
// response is an empty message: the peer does not spend time on a receipt.
func newGrpcServer(voteLog voteLog) *grpc.Server {
	castVote := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request, response message
		if err := decode(&request); err != nil {
			return nil, err
		}
		if _, err := voteLog.publish(ctx, voteID(request), request); err != nil {
			return nil, err
		}
		return &response, nil
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "ovation.v1.VoteService",
		Methods:     []grpc.MethodDesc{{MethodName: "CastVote", Handler: castVote}},
	}, nil)
	return server
}

// voteIDField is the number of the field vote_id in ovation.v1.CastVoteRequest.
const voteIDField protowire.Number = 7

// voteID returns the field vote_id of an encoded ovation.v1.CastVoteRequest, or an empty text if the request has no valid field of this number.
func voteID(request message) string {
	for rest := []byte(request); len(rest) > 0; {
		number, wireType, length := protowire.ConsumeField(rest)
		if length < 0 {
			return ""
		}
		if number == voteIDField && wireType == protowire.BytesType {
			_, _, tagLength := protowire.ConsumeTag(rest)
			id, _ := protowire.ConsumeString(rest[tagLength:])
			return id
		}
		rest = rest[length:]
	}
	return ""
}

// A message is an encoded message of gRPC.
type message []byte

// A rawCodec passes messages on without decoding or encoding them. The values are of the type *message.
type rawCodec struct{}

// Name returns the name of Protobuf's codec, because the messages are encoded with Protobuf.
func (rawCodec) Name() string { return "proto" }

// Marshal returns the bytes of a message.
func (rawCodec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*value.(*message))}, nil
}

// Unmarshal copies received bytes into a message.
func (rawCodec) Unmarshal(data mem.BufferSlice, value any) error {
	*value.(*message) = data.Materialize()
	return nil
}
