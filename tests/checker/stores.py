"""Reads the vote log, the ledger and the tallies with the public clients of Kafka, MongoDB and Redis."""

import pymongo
import redis
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

# The client library prints only critical errors: a broker that does not respond is one of the faults.
QUIET = {"log_level": 2}


class Stores:
    """The topic, the database and the key prefix of one round. `redis_port` is that of the current master."""

    def __init__(self, bootstrap, topic, redis_port, prefix, mongo_port, database):
        self.bootstrap, self.topic = bootstrap, topic
        self.redis_port, self.prefix = redis_port, prefix
        self.mongo_port, self.database = mongo_port, database

    def redis(self, timeout=20):
        return redis.Redis(port=self.redis_port, decode_responses=True, socket_timeout=timeout)

    def mongo(self):
        return pymongo.MongoClient(port=self.mongo_port, retryWrites=False, serverSelectionTimeoutMS=5000)[self.database]

    def key(self, name):
        """Returns the Redis key of this name, which has our prefix as its hash tag."""
        return f"{{{self.prefix}}}:{name}"

    def bounds(self, topic=None):
        """Returns the first offset and the end of each partition."""
        topic = topic or self.topic
        consumer = self._consumer()
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            return {partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10) for partition in range(len(partitions))}
        finally:
            consumer.close()

    def log(self, topic=None):
        """Returns every record, (partition, offset) -> (key, value, timestamp, headers), and the bounds of the partitions."""
        topic = topic or self.topic
        bounds = self.bounds(topic)
        consumer = self._consumer()
        records = {}
        unread = {partition for partition, (start, end) in bounds.items() if end > start}
        consumer.assign([TopicPartition(topic, partition, bounds[partition][0]) for partition in unread])
        while unread:
            for message in consumer.consume(5000, 1.0):
                partition, offset = message.partition(), message.offset()
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise RuntimeError(message.error())
                    unread.discard(partition)
                    continue
                records[partition, offset] = (message.key(), message.value(), message.timestamp()[1], message.headers())
                if offset + 1 >= bounds[partition][1]:
                    unread.discard(partition)
        consumer.close()
        return records, bounds

    def group(self):
        """Returns the state of the consumer group and the partitions of each member, as a text."""
        name = f"ovation-{self.topic}"
        # The client must live until the result is there.
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})
        description = admin.describe_consumer_groups([name], request_timeout=5)[name].result(6)
        members = {member.member_id[-8:]: sorted(part.partition for part in member.assignment.topic_partitions) for member in description.members}
        return f"{description.state.name}, partitions by member: {members}"

    def ledger(self):
        """Returns the documents of the ledger's votes by their ballot keys."""
        return {document["_id"]: document for document in self.mongo().votes.find({}, batch_size=5000)}

    def positions(self):
        """Returns the tallies' position of each partition."""
        return {int(partition): int(offset) for partition, offset in self.redis().hgetall(self.key("position")).items()}

    def tallies(self):
        """Returns all counts of Redis by kind and contest. Those of windows are by contest and size."""
        client = self.redis()
        found = {"tally": {}, "albums": {}, "producers": {}, "rate": {}}
        begin = self.key("")
        pattern = begin.replace("{", "?").replace("}", "?") + "*"
        for key in client.scan_iter(match=pattern, count=1000):
            kind, _, rest = key[len(begin) :].partition(":")
            if kind in ("tally", "albums", "producers"):
                found[kind][rest] = {field: int(count) for field, count in client.hgetall(key).items()}
            elif kind == "rate":
                contest, size, _ = rest.split(":")
                found["rate"].setdefault((contest, size), {}).update({int(start): int(count) for start, count in client.hgetall(key).items()})
        return found

    def _consumer(self):
        return Consumer({
            "bootstrap.servers": self.bootstrap,
            "group.id": "checker",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 4 << 20,
            **QUIET,
        })
